"""An unmodified DDP script: two layers, gloo, a few steps; each rank must end with the same parameters."""
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def main():
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)
    model = DistributedDataParallel(torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(5):
        x = torch.randn(32, 8)
        loss = torch.nn.functional.mse_loss(model(x), x.sum(1, keepdim=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    total = torch.cat([p.detach().flatten() for p in model.parameters()]).double().sum().reshape(1)
    all_totals = [torch.zeros_like(total) for _ in range(size)]
    dist.all_gather(all_totals, total)
    same = all(float(t) == float(total) for t in all_totals)
    print("ddp rank %d of %d: loss %.4f, parameters %s" % (rank, size, loss.item(), "equal" if same else "differ"), flush=True)
    dist.destroy_process_group()


main()
