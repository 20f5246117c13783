/* The CUDA module's border: missing, of another build, without a GPU, and one that answers. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <trainrun/device.h>
#include <unistd.h>

static const char *fake(const char *name) {
  static char folder[4096];
  snprintf(folder, sizeof folder, "%s/tests/device/fake/%s", TRAINRUN_BUILD_DIR, name);
  return folder;
}

static tr_status open_in(const char *folder, tr_device_kind kind, int32_t index, tr_device **device, tr_error *error) {
  const tr_device_options options = {
      .struct_bytes = sizeof options, .kind = kind, .index = index, .module_folder = folder};
  return tr_device_open(&options, device, error);
}

static void expect_refused(const char *name, tr_status status, const char *words) {
  tr_device *device = NULL;
  tr_error error = {.status = TR_OK};
  cr_expect_eq(open_in(fake(name), TR_DEVICE_CUDA, 0, &device, &error), status, "%s: %s", name, error.message);
  cr_expect_null(device);
  cr_expect_not_null(strstr(error.message, words), "%s: %s", name, error.message);
}

Test(module, that_is_missing_says_where_it_belongs_and_what_to_do) {
  tr_device *device = NULL;
  tr_error error;
  cr_expect_eq(open_in("/nowhere", TR_DEVICE_CUDA, 0, &device, &error), TR_ERR_UNAVAILABLE);
  cr_expect_str_eq(error.message,
                   "device cuda: libtrainrun_cuda.so is not beside libtrainrun.so (/nowhere); build it with make cuda, "
                   "or set cluster.device = \"cpu\"");
  cr_expect_eq(tr_status_exit_code(error.status), 69);
}

Test(module, is_looked_for_beside_the_library_when_no_folder_is_given) {
  tr_device *device = NULL;
  tr_error error;
  cr_expect_eq(open_in(NULL, TR_DEVICE_CUDA, 0, &device, &error), TR_ERR_UNAVAILABLE);
  cr_expect_not_null(strstr(error.message, "tests/device)"), "%s", error.message);
}

Test(module, that_is_missing_lets_auto_use_the_cpu) {
  tr_device *device = NULL;
  cr_assert_eq(open_in("/nowhere", TR_DEVICE_AUTO, 3, &device, NULL), TR_OK);
  cr_expect_eq(tr_device_kind_of(device), TR_DEVICE_CPU);
  tr_device_close(device);
  cr_expect_eq(tr_device_gpu_count("/nowhere"), 0);
}

Test(module, of_another_build_is_refused_and_never_called) {
  expect_refused("old", TR_ERR_MISMATCH, "another build");
  expect_refused("other_table", TR_ERR_MISMATCH, "another build");
  expect_refused("other_error", TR_ERR_MISMATCH, "another build");
  expect_refused("no_entry", TR_ERR_MISMATCH, "another build");
  cr_expect_eq(tr_device_gpu_count(fake("old")), 0);
}

Test(module, of_another_build_is_not_passed_over_by_auto) {
  tr_device *device = NULL;
  cr_expect_eq(open_in(fake("old"), TR_DEVICE_AUTO, 0, &device, NULL), TR_ERR_MISMATCH);
}

Test(module, that_is_no_library_says_why) {
  char folder[] = "/tmp/trainrun-module-XXXXXX", path[256];
  cr_assert_not_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/libtrainrun_cuda.so", folder);
  FILE *file = fopen(path, "w");
  fputs("not an ELF file", file);
  fclose(file);
  tr_device *device = NULL;
  tr_error error;
  cr_expect_eq(open_in(folder, TR_DEVICE_CUDA, 0, &device, &error), TR_ERR_UNAVAILABLE);
  cr_expect_not_null(strstr(error.message, "cannot be loaded"), "%s", error.message);
  unlink(path);
  rmdir(folder);
}

Test(module, on_a_host_without_a_gpu_says_so_and_auto_uses_the_cpu) {
  expect_refused("no_gpu", TR_ERR_UNAVAILABLE, "shows no GPU");
  tr_device *device = NULL;
  cr_assert_eq(open_in(fake("no_gpu"), TR_DEVICE_AUTO, 0, &device, NULL), TR_OK);
  cr_expect_eq(tr_device_kind_of(device), TR_DEVICE_CPU);
  tr_device_close(device);
}

Test(module, of_this_build_gets_every_call) {
  cr_expect_eq(tr_device_gpu_count(fake("good")), 2);
  tr_device *device = NULL;
  tr_error error;
  cr_assert_eq(open_in(fake("good"), TR_DEVICE_AUTO, 1, &device, &error), TR_OK, "%s", error.message);
  cr_expect_eq(tr_device_kind_of(device), TR_DEVICE_CUDA);
  cr_expect_str_eq(tr_device_name(device), "fake 1");
  void *p = tr_device_alloc(device, TR_SPACE_DEVICE, 100);
  cr_assert_not_null(p);
  cr_expect_eq(tr_device_copy(device, p, "abc", 4, NULL, NULL), TR_OK);
  cr_expect_str_eq((char *)p, "abc");
  tr_device_free(device, TR_SPACE_DEVICE, p, 100);
  tr_stream *stream = NULL;
  tr_event *event = NULL;
  cr_assert_eq(tr_stream_create(device, &stream, NULL), TR_OK);
  cr_assert_eq(tr_event_create(device, &event, NULL), TR_OK);
  cr_expect_eq(tr_event_record(device, event, stream, NULL), TR_OK);
  cr_expect_eq(tr_stream_wait_event(device, stream, event, NULL), TR_OK);
  cr_expect_eq(tr_stream_sync(device, stream, &error), TR_ERR_TIMEOUT);
  cr_expect_str_eq(error.message, "fake: a sync that fails");
  tr_event_destroy(device, event);
  tr_stream_destroy(device, stream);
  tr_device_close(device);
}

Test(module, refuses_a_gpu_that_is_not_there) {
  tr_device *device = NULL;
  tr_error error;
  cr_expect_eq(open_in(fake("good"), TR_DEVICE_CUDA, 7, &device, &error), TR_ERR_UNAVAILABLE);
  cr_expect_null(device);
}
