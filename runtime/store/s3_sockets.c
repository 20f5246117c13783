/* What the engine's thread sleeps on: libcurl's sockets and its timer, and a descriptor for whoever wants to wake it.
 *
 * Only sockets that have something cost anything. With curl_multi_perform every one of them is asked at each wake: an eighth
 * more of a client's processor time in ranges of 100 KB, measured over loopback. */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "s3_private.h"

enum { EVENTS = 64, SLEEP_MS = 1000 };

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *user, void *known) {
  (void)easy, (void)known;
  const s3_store *store = user;
  struct epoll_event event = {.data.fd = fd};
  if (what == CURL_POLL_REMOVE) {
    epoll_ctl(store->epoll_fd, EPOLL_CTL_DEL, fd, &event); /* closed ones are gone already */
    return 0;
  }
  if ((what & CURL_POLL_IN) != 0) event.events |= EPOLLIN;
  if ((what & CURL_POLL_OUT) != 0) event.events |= EPOLLOUT;
  if (epoll_ctl(store->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0) return 0;
  return errno == EEXIST && epoll_ctl(store->epoll_fd, EPOLL_CTL_MOD, fd, &event) == 0 ? 0 : -1;
}

static int on_timer(CURLM *multi, long wait_ms, void *user) {
  (void)multi;
  s3_store *store = user;
  store->curl_due_ns = wait_ms < 0 ? UINT64_MAX : s3_now(store) + (uint64_t)wait_ms * 1000000;
  return 0;
}

static int action_of(uint32_t events) {
  int action = 0;
  if ((events & EPOLLIN) != 0) action |= CURL_CSELECT_IN;
  if ((events & EPOLLOUT) != 0) action |= CURL_CSELECT_OUT;
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) action |= CURL_CSELECT_ERR;
  return action;
}

static int wait_ms(const s3_store *store, uint64_t until_ns) {
  const uint64_t now = s3_now(store), until = until_ns < store->curl_due_ns ? until_ns : store->curl_due_ns;
  if (until <= now) return 0;
  return until - now < (uint64_t)SLEEP_MS * 1000000 ? (int)((until - now) / 1000000) + 1 : SLEEP_MS;
}

void s3_sockets_run(s3_store *store, uint64_t until_ns) {
  struct epoll_event events[EVENTS];
  int running = 0;
  const int count = epoll_wait(store->epoll_fd, events, EVENTS, wait_ms(store, until_ns));
  for (int i = 0; i < count; i++) {
    const int fd = events[i].data.fd;
    uint64_t wakes;
    if (fd != store->wake_fd) {
      store->lib.multi_socket_action(store->multi, fd, action_of(events[i].events), &running);
    } else {
      while (read(fd, &wakes, sizeof wakes) < 0 && errno == EINTR) continue;
    }
  }
  /* Once: what is due now again is due in the next round. */
  if (store->curl_due_ns > s3_now(store)) return;
  store->curl_due_ns = UINT64_MAX;
  store->lib.multi_socket_action(store->multi, CURL_SOCKET_TIMEOUT, 0, &running);
}

void s3_sockets_wake(s3_store *store) {
  const uint64_t one = 1;
  while (write(store->wake_fd, &one, sizeof one) < 0 && errno == EINTR) continue;
}

tr_status s3_sockets_open(s3_store *store, tr_error *error) {
  const s3_lib *lib = &store->lib;
  store->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  if (store->epoll_fd < 0) return tr_fail_errno(error, TR_ERR_IO, errno, "s3: epoll_create1");
  store->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (store->wake_fd < 0) return tr_fail_errno(error, TR_ERR_IO, errno, "s3: eventfd");
  struct epoll_event event = {.events = EPOLLIN, .data.fd = store->wake_fd};
  if (epoll_ctl(store->epoll_fd, EPOLL_CTL_ADD, store->wake_fd, &event) != 0) {
    return tr_fail_errno(error, TR_ERR_IO, errno, "s3: epoll_ctl");
  }
  store->curl_due_ns = UINT64_MAX;
  lib->multi_setopt(store->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
  lib->multi_setopt(store->multi, CURLMOPT_SOCKETDATA, store);
  lib->multi_setopt(store->multi, CURLMOPT_TIMERFUNCTION, on_timer);
  lib->multi_setopt(store->multi, CURLMOPT_TIMERDATA, store);
  return TR_OK;
}

void s3_sockets_close(s3_store *store) {
  if (store->wake_fd >= 0) close(store->wake_fd);
  if (store->epoll_fd >= 0) close(store->epoll_fd);
}
