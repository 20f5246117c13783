/* Starting MinIO and versitygw: see s3_server.h. */
#include "support/s3_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READY_S = 30 };

static const char *const names[TS_S3_KINDS] = {"minio", "versitygw"};
/* Criterion runs each test in a process of its own, which learns from here what the first one started. */
static const char *const variables[TS_S3_KINDS] = {"TS_S3_MINIO", "TS_S3_VERSITYGW"};

static pid_t g_servers[TS_S3_KINDS];
static pid_t g_owner;
static int g_buckets;

static void die(const char *what, const char *name) {
  fprintf(stderr, "test support: %s %s: %s\n", what, name, strerror(errno));
  abort();
}

static const char *program(ts_s3_kind kind) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  if (cache != NULL && cache[0] != '\0') return ts_format("%s/trainrun/bin/%s", cache, names[kind]);
  return ts_format("%s/.cache/trainrun/bin/%s", home != NULL ? home : "", names[kind]);
}

const char *ts_s3_missing(ts_s3_kind kind) {
  return access(program(kind), X_OK) == 0 ? NULL : ts_format("no %s here; scripts/servers builds it", names[kind]);
}

static struct sockaddr_in loopback(int port) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

static int free_port(void) {
  struct sockaddr_in address = loopback(0);
  socklen_t bytes = sizeof address;
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 ||
      getsockname(fd, (struct sockaddr *)&address, &bytes) != 0) {
    die("no free port", "");
  }
  close(fd);
  return ntohs(address.sin_port);
}

/* The arguments of a server, NULL-terminated, and its environment. */
static void command(ts_s3_kind kind, int port, const char *folder, const char *arguments[12],
                    const char *environment[4]) {
  size_t i = 0;
  const char *address = ts_format("127.0.0.1:%d", port);
  arguments[i++] = program(kind);
  if (kind == TS_MINIO) {
    const char *const rest[] = {"server", "--quiet", "--address", address, folder};
    for (size_t k = 0; k < sizeof rest / sizeof *rest; k++) arguments[i++] = rest[k];
    environment[0] = "MINIO_ROOT_USER=" TS_S3_KEY;
    environment[1] = "MINIO_ROOT_PASSWORD=" TS_S3_SECRET;
    environment[2] = "MINIO_UPDATE=off";
  } else {
    const char *iam = ts_format("%s-iam", folder);
    mkdir(iam, 0700);
    const char *const rest[] = {"--port", address, "--quiet", "--iam-dir", iam, "posix", folder};
    for (size_t k = 0; k < sizeof rest / sizeof *rest; k++) arguments[i++] = rest[k];
    environment[0] = "ROOT_ACCESS_KEY=" TS_S3_KEY;
    environment[1] = "ROOT_SECRET_KEY=" TS_S3_SECRET;
    environment[2] = NULL;
  }
  arguments[i] = NULL;
  environment[3] = NULL;
}

/* Any answer will do, but for "not yet". */
static bool answers(int port) {
  static const char question[] = "GET / HTTP/1.0\r\n\r\n";
  const struct sockaddr_in address = loopback(port);
  char text[64] = "";
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool connected = connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
  if (connected && send(fd, question, sizeof question - 1, MSG_NOSIGNAL) > 0) {
    const ssize_t got = recv(fd, text, sizeof text - 1, 0);
    if (got <= 0) text[0] = '\0';
  }
  close(fd);
  return strncmp(text, "HTTP/1.", 7) == 0 && strncmp(text + 8, " 5", 2) != 0;
}

static void wait_ready(ts_s3_kind kind, int port) {
  const double deadline_s = ts_now_s() + READY_S;
  while (!answers(port)) {
    if (ts_now_s() > deadline_s) die("does not answer:", names[kind]);
    ts_sleep_s(0.01);
  }
}

/* ---- The program's servers ----------------------------------------------------------------------------------------- */

static void stop_servers(void) {
  if (getpid() != g_owner) return;
  for (int kind = 0; kind < TS_S3_KINDS; kind++) {
    if (g_servers[kind] > 0) kill(g_servers[kind], SIGKILL);
    if (g_servers[kind] > 0) waitpid(g_servers[kind], NULL, 0);
  }
}

static pid_t launch(ts_s3_kind kind, int port, const char *folder) {
  const char *arguments[12], *environment[4];
  command(kind, port, folder, arguments, environment);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) die("fork for", names[kind]);
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(1);
  const int log = open(ts_format("%s-log", folder), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  for (int i = 0; environment[i] != NULL; i++) putenv((char *)environment[i]);
  execv(arguments[0], (char *const *)arguments);
  _exit(127);
}

/* In the first process of a test program that uses this file, before main. */
__attribute__((constructor)) static void start_servers(void) {
  for (int kind = 0; kind < TS_S3_KINDS; kind++) {
    if (getenv(variables[kind]) != NULL || ts_s3_missing((ts_s3_kind)kind) != NULL) continue;
    const char *folder = ts_format("%s/data", ts_folder());
    if (mkdir(folder, 0700) != 0) die("mkdir", folder);
    if (g_owner == 0) atexit(stop_servers);
    g_owner = getpid();
    const int port = free_port();
    g_servers[kind] = launch((ts_s3_kind)kind, port, folder);
    setenv(variables[kind], ts_format("%d %s", port, folder), 1);
  }
}

static int shared_port(ts_s3_kind kind, char folder[4096]) {
  int port = 0;
  const char *value = getenv(variables[kind]);
  if (value == NULL || sscanf(value, "%d %4000s", &port, folder) != 2) die("was not started:", names[kind]);
  return port;
}

const char *ts_s3_endpoint(ts_s3_kind kind) {
  char folder[4096];
  const int port = shared_port(kind, folder);
  wait_ready(kind, port);
  return ts_format("http://127.0.0.1:%d", port);
}

/* Both keep a bucket as a folder. */
const char *ts_s3_bucket(ts_s3_kind kind) {
  char folder[4096];
  shared_port(kind, folder);
  const char *name = ts_format("test-%d-%d", (int)getpid(), ++g_buckets);
  if (mkdir(ts_format("%s/%s", folder, name), 0700) != 0) die("mkdir", name);
  return name;
}

static tr_status get_credentials(void *self, bool renew, tr_s3_credentials *credentials, tr_error *error) {
  (void)self, (void)renew, (void)error;
  *credentials = (tr_s3_credentials){.access_key = TS_S3_KEY, .secret_key = TS_S3_SECRET};
  return TR_OK;
}

tr_s3_credentials_source ts_s3_credentials(void) { return (tr_s3_credentials_source){.get = get_credentials}; }

tr_store_s3_options ts_s3_options(ts_s3_kind kind, const tr_allocator *allocator) {
  return (tr_store_s3_options){.struct_bytes = sizeof(tr_store_s3_options),
                               .allocator = allocator,
                               .bucket = ts_s3_bucket(kind),
                               .endpoint = ts_s3_endpoint(kind),
                               .path_style = true,
                               .credentials = ts_s3_credentials()};
}

/* ---- A test's own server ------------------------------------------------------------------------------------------- */

ts_s3_server ts_s3_start(ts_s3_kind kind, const ts_s3_server *like) {
  ts_s3_server server = {.kind = kind, .port = like != NULL ? like->port : free_port()};
  server.folder = like != NULL ? like->folder : ts_format("%s/data", ts_folder());
  server.endpoint = ts_format("http://127.0.0.1:%d", server.port);
  mkdir(server.folder, 0700);
  const char *arguments[12], *environment[4];
  command(kind, server.port, server.folder, arguments, environment);
  const ts_options options = {.environment = environment};
  server.process = ts_start(arguments, &options);
  wait_ready(kind, server.port);
  return server;
}

void ts_s3_kill(ts_s3_server *server) {
  kill(server->process.pid, SIGKILL);
  waitpid(server->process.pid, NULL, 0);
  server->process.pid = 0;
}

void ts_s3_make_bucket(const ts_s3_server *server, const char *name) {
  if (mkdir(ts_format("%s/%s", server->folder, name), 0700) != 0) die("mkdir", name);
}
