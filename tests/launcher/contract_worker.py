"""What a script sees that was written for torchrun: prints its environment as JSON; fails once where it is told to."""
import json
import os
import sys

names = ("RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE ROLE_RANK ROLE_WORLD_SIZE ROLE_NAME "
         "MASTER_ADDR MASTER_PORT TORCHELASTIC_RESTART_COUNT TORCHELASTIC_MAX_RESTARTS TORCHELASTIC_RUN_ID "
         "TORCHELASTIC_USE_AGENT_STORE TORCHELASTIC_ERROR_FILE OMP_NUM_THREADS TORCH_NCCL_ASYNC_ERROR_HANDLING").split()
print("SEEN " + json.dumps({"argv": sys.argv[1:], "env": {name: os.environ.get(name) for name in names}}))
sys.stdout.flush()
restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
if "--fail-once" in sys.argv and restarts == 0 and os.environ["RANK"] == "1":
    with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as file:
        json.dump({"message": {"message": "ValueError: no such luck", "extraInfo": {}}}, file)
    sys.exit(4)
