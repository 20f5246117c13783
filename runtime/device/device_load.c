/* Where the CUDA module is opened: libtrainrun_cuda.so beside this library, and nowhere else, so that neither a search
 * path nor the working directory decides which code runs. */
#include "device_module.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE_FILE "libtrainrun_cuda.so"

/* The file that holds this very function: libtrainrun.so, or the program it was linked into. A program's own name comes
 * from the kernel, because its argv[0] may say anything. */
static bool own_file(char path[PATH_MAX]) {
  Dl_info info;
  struct link_map *map = NULL;
  void *here = NULL;
  const tr_device_module *(*function)(void) = tr_device_cpu_module;
  memcpy(&here, &function, sizeof here);
  const bool found = dladdr1(here, &info, (void **)&map, RTLD_DL_LINKMAP) != 0 && map != NULL && map->l_name != NULL;
  return realpath(found && map->l_name[0] != '\0' ? map->l_name : "/proc/self/exe", path) != NULL;
}

static char *own_folder(const tr_allocator *allocator) {
  char path[PATH_MAX];
  if (!own_file(path)) return tr_strdup(allocator, "/nowhere");
  const char *slash = strrchr(path, '/');
  return tr_strndup(allocator, path, slash == path ? 1 : (size_t)(slash - path));
}

static tr_status check_module(const tr_device_module *module, const char *path, tr_error *error) {
  if (module == NULL || module->struct_bytes != sizeof *module || module->version != TR_DEVICE_MODULE_VERSION ||
      module->error_bytes != sizeof(tr_error)) {
    return tr_fail(error, TR_ERR_MISMATCH,
                   "device cuda: %s belongs to another build of trainrun; build it again with make cuda, or set "
                   "cluster.device = \"cpu\"",
                   path);
  }
  return TR_OK;
}

static tr_status load(const char *path, const tr_device_module **out, tr_error *error) {
  static const tr_device_host host = {
      .struct_bytes = sizeof host,
      .version = TR_DEVICE_MODULE_VERSION,
      .alloc = tr_alloc,
      .free = tr_free,
      .fail = tr_fail,
  };
  /* A CUDA runtime cannot be unloaded safely, so a module that was loaded stays. */
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == NULL) {
    const char *reason = dlerror();
    return tr_fail(error, TR_ERR_UNAVAILABLE, "device cuda: %s cannot be loaded: %s", path,
                   reason != NULL ? reason : "no reason given");
  }
  void *symbol = dlsym(handle, TR_DEVICE_MODULE_ENTRY);
  const tr_device_module *module = NULL;
  if (symbol != NULL) {
    tr_device_module_entry_fn entry;
    memcpy(&entry, &symbol, sizeof entry);
    module = entry(&host);
  }
  const tr_status status = check_module(module, path, error);
  dlclose(handle);
  if (status != TR_OK) return status;
  *out = module;
  return TR_OK;
}

tr_status tr_device_cuda_module(const tr_allocator *allocator, const char *folder, const tr_device_module **out,
                                tr_error *error) {
  char *beside = folder != NULL ? tr_strdup(allocator, folder) : own_folder(allocator);
  char *path = beside != NULL ? tr_asprintf(allocator, "%s/" MODULE_FILE, beside) : NULL;
  tr_status status;
  if (path == NULL) {
    status = tr_fail_memory(error, "the path of " MODULE_FILE, 0);
  } else if (access(path, F_OK) != 0) {
    status = tr_fail(error, TR_ERR_UNAVAILABLE,
                     "device cuda: " MODULE_FILE
                     " is not beside libtrainrun.so (%s); build it with make cuda, or set "
                     "cluster.device = \"cpu\"",
                     beside);
  } else {
    status = load(path, out, error);
  }
  if (path != NULL) tr_free(allocator, path);
  if (beside != NULL) tr_free(allocator, beside);
  return status;
}
