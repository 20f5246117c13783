/* Transforms as a loader applies them: what they make of an image, what they draw, what they refuse. */
#include "dataloader/data.h"

#include <math.h>
#include <stdio.h>
#include <trainrun/crc32c.h>

enum { SPECS_MAX = 8 };

typedef struct list {
  const char *specs[SPECS_MAX];
} list;

static size_t count_of(const list *l) {
  size_t count = 0;
  while (count < SPECS_MAX && l->specs[count] != NULL) count++;
  return count;
}

/* ---- Data -------------------------------------------------------------------------------------------------------- */

/* Red says the column, green the row, blue is noise. */
static uint8_t *make_pixels(uint32_t height, uint32_t width, uint32_t channels, uint64_t seed) {
  uint8_t *pixels = malloc((size_t)height * width * channels);
  for (uint32_t y = 0; y < height; y++) {
    for (uint32_t x = 0; x < width; x++) {
      uint8_t *at = pixels + ((size_t)y * width + x) * channels;
      at[0] = (uint8_t)x;
      if (channels == 3) at[1] = (uint8_t)y;
      if (channels == 3) at[2] = (uint8_t)noise(seed, (uint64_t)y * width + x);
    }
  }
  return pixels;
}

typedef enum kind { PNG, JPEG } kind;

static bytes make_image(kind k, uint32_t height, uint32_t width, uint32_t channels) {
  uint8_t *pixels = make_pixels(height, width, channels, 0);
  bytes image = k == PNG ? make_png(height, width, channels, pixels) : make_jpeg(height, width, channels, pixels);
  free(pixels);
  return image;
}

static void add_image(bytes *tar, kind k, uint32_t number, bytes image) {
  char name[32];
  snprintf(name, sizeof name, "%06u.%s", number, k == PNG ? "png" : "jpg");
  tar_add(tar, name, image.data, image.count);
}

/* One image many times. */
static void put_images(tr_stores *stores, const char *url, kind k, uint32_t count, uint32_t height, uint32_t width,
                       uint32_t channels) {
  bytes tar = {0}, image = make_image(k, height, width, channels);
  for (uint32_t i = 0; i < count; i++) add_image(&tar, k, i, image);
  tar_end(&tar);
  put_bytes(stores, url, tar);
  bytes_free(&image);
  bytes_free(&tar);
}

/* ---- Running ----------------------------------------------------------------------------------------------------- */

typedef struct run {
  tr_stores *stores;
  tr_dataset *dataset;
  tr_device *device;
  tr_loader *loader;
  tr_field field;
} run;

static tr_status open_run(run *r, tr_stores *stores, const char *url, const list *l, uint64_t epoch, uint32_t threads,
                          tr_error *e) {
  *r = (run){.stores = stores};
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .transforms = l->specs,
                                      .transform_count = count_of(l)};
  TR_TRY(tr_dataset_open(&options, &r->dataset, e));
  r->device = make_cpu(NULL);
  const tr_loader_options loader = {.struct_bytes = sizeof loader,
                                    .device = r->device,
                                    .dataset = r->dataset,
                                    .seed = 5,
                                    .batch_size = 2,
                                    .micro_batch = 2,
                                    .size = 1,
                                    .cursor = {.epoch = epoch},
                                    .epochs = epoch + 1,
                                    .threads = threads,
                                    .transforms = l->specs,
                                    .transform_count = count_of(l)};
  TR_TRY(tr_loader_open(&loader, &r->loader, e));
  const tr_field *fields, *same;
  tr_loader_fields(r->loader, &fields);
  tr_dataset_fields(r->dataset, &same);
  cr_assert_eq(memcmp(fields, same, sizeof *fields), 0, "the data set and its loader say the same of a field");
  r->field = fields[0];
  return TR_OK;
}

static void close_run(run *r) {
  tr_loader_close(r->loader);
  tr_dataset_close(r->dataset);
  tr_device_close(r->device);
}

/* All samples of an epoch, by their ids. */
static uint8_t *values_of(run *r) {
  tr_error e = {0};
  uint8_t *values = malloc(tr_dataset_size(r->dataset) * r->field.bytes);
  for (;;) {
    tr_batch_info info;
    tr_micro_batch batch;
    bool end;
    EXPECT_OK(tr_loader_begin(r->loader, &info, &end, &e));
    if (end) return values;
    EXPECT_OK(tr_loader_next(r->loader, &batch, NULL, &e));
    for (uint32_t row = 0; row < batch.row_count; row++) {
      memcpy(values + batch.ids[row] * r->field.bytes, (const uint8_t *)batch.fields[0] + row * r->field.bytes,
             r->field.bytes);
    }
    tr_loader_commit(r->loader);
  }
}

static uint8_t *values(tr_stores *stores, const char *url, const list *l, uint64_t epoch, uint32_t threads,
                       tr_field *field) {
  tr_error e = {0};
  run r;
  EXPECT_OK(open_run(&r, stores, url, l, epoch, threads, &e));
  uint8_t *found = values_of(&r);
  *field = r.field;
  close_run(&r);
  return found;
}

/* What the list makes of one image of that size. */
static uint8_t *one(uint32_t height, uint32_t width, uint32_t channels, list l, tr_field *field) {
  tr_stores *stores = make_stores(NULL);
  put_images(stores, "memory://d/one.tar", PNG, 1, height, width, channels);
  uint8_t *found = values(stores, "memory://d/one.tar", &l, 0, 1, field);
  tr_stores_destroy(stores);
  return found;
}

/* ---- Geometry ---------------------------------------------------------------------------------------------------- */

/* The weighted mean under each pixel of the result, in double. */
static double resized(const uint8_t *pixels, uint32_t height, uint32_t width, uint32_t channels, double y_scale,
                      double x_scale, uint32_t y, uint32_t x, uint32_t c) {
  const double y_reach = y_scale > 1 ? y_scale : 1, x_reach = x_scale > 1 ? x_scale : 1;
  const double y_center = (y + 0.5) * y_scale, x_center = (x + 0.5) * x_scale;
  double sum = 0, weights = 0;
  for (uint32_t i = 0; i < height; i++) {
    for (uint32_t j = 0; j < width; j++) {
      const double a = 1 - fabs(i + 0.5 - y_center) / y_reach, b = 1 - fabs(j + 0.5 - x_center) / x_reach;
      if (a <= 0 || b <= 0) continue;
      sum += a * b * pixels[((size_t)i * width + j) * channels + c];
      weights += a * b;
    }
  }
  return sum / weights;
}

static void expect_resized(uint32_t height, uint32_t width, uint32_t channels, uint32_t to_height, uint32_t to_width) {
  tr_field field;
  char *spec = ts_format("resize %u %u", to_height, to_width);
  uint8_t *pixels = make_pixels(height, width, channels, 0);
  uint8_t *found = one(height, width, channels, (list){{spec}}, &field);
  cr_assert(field.dtype == TR_U8 && field.ndim == 3 && field.shape[0] == to_height && field.shape[1] == to_width);
  for (uint32_t y = 0; y < to_height; y++) {
    for (uint32_t x = 0; x < to_width; x++) {
      for (uint32_t c = 0; c < channels; c++) {
        const double wanted = resized(pixels, height, width, channels, (double)height / to_height,
                                      (double)width / to_width, y, x, c);
        const double is = found[((size_t)y * to_width + x) * channels + c];
        cr_assert(fabs(is - wanted) < 1.01, "%s of %u x %u at %u, %u, %u: %g, not %g", spec, height, width, y, x, c, is,
                  wanted);
      }
    }
  }
  free(found);
  free(pixels);
  free(spec);
}

Test(transforms, resize_is_the_mean_of_what_lies_under_a_pixel) {
  expect_resized(37, 51, 3, 16, 20);
  expect_resized(37, 51, 3, 60, 70);
  expect_resized(20, 31, 1, 20, 8);
  expect_resized(20, 31, 3, 3, 31);
  expect_resized(20, 31, 3, 20, 31);
  expect_resized(1, 9, 3, 4, 1);
  expect_resized(60, 2, 1, 1, 5);
}

Test(transforms, resize_of_one_number_keeps_the_shape_of_the_image) {
  tr_field field;
  free(one(30, 45, 3, (list){{"resize 20"}}, &field));
  cr_assert(field.shape[0] == 20 && field.shape[1] == 30 && field.shape[2] == 3);
  free(one(45, 31, 1, (list){{"resize 60"}}, &field));
  cr_assert(field.shape[0] == 87 && field.shape[1] == 60 && field.shape[2] == 1);
}

Test(transforms, center_crop_takes_the_middle_and_fills_up_with_zeros) {
  tr_field field;
  uint8_t *found = one(21, 30, 3, (list){{"center-crop 10 20"}}, &field);
  cr_assert(field.shape[0] == 10 && field.shape[1] == 20);
  cr_assert(found[0] == 5 && found[1] == 6, "%u %u", found[0], found[1]); /* 5.5 is rounded to even */
  free(found);
  found = one(4, 30, 3, (list){{"center-crop 7 20"}}, &field);
  cr_assert(field.shape[0] == 7 && field.shape[1] == 20);
  for (size_t i = 0; i < 60; i++) cr_assert_eq(found[i], 0);
  for (uint32_t y = 0; y < 4; y++) cr_assert(found[(1 + y) * 60] == 5 && found[(1 + y) * 60 + 1] == y);
  for (size_t i = 5 * 60; i < 7 * 60; i++) cr_assert_eq(found[i], 0);
  free(found);
}

Test(transforms, flip_mirrors) {
  tr_field field;
  uint8_t *pixels = make_pixels(5, 7, 3, 0);
  uint8_t *same = one(5, 7, 3, (list){{"flip 0"}}, &field), *mirror = one(5, 7, 3, (list){{"flip 1"}}, &field);
  uint8_t *both = one(5, 7, 3, (list){{"flip 1", "center-crop 5 3", "flip 1"}}, &field);
  cr_assert_eq(memcmp(same, pixels, 5 * 7 * 3), 0);
  for (uint32_t y = 0; y < 5; y++) {
    for (uint32_t x = 0; x < 7; x++) cr_assert_eq(memcmp(mirror + (y * 7 + x) * 3, pixels + (y * 7 + 6 - x) * 3, 3), 0);
    cr_assert_eq(memcmp(both + y * 9, pixels + (y * 7 + 2) * 3, 9), 0);
  }
  free(pixels);
  free(same);
  free(mirror);
  free(both);
}

Test(transforms, a_flipped_image_is_resized_and_padded_as_it_is_then) {
  tr_field field;
  uint8_t *straight = one(40, 50, 3, (list){{"resize 20 30"}}, &field);
  uint8_t *turned = one(40, 50, 3, (list){{"flip 1", "resize 20 30", "flip 1"}}, &field);
  for (size_t i = 0; i < 20 * 30 * 3; i++) cr_assert(abs(straight[i] - turned[i]) <= 1);
  free(straight);
  free(turned);
  uint8_t *padded = one(4, 4, 3, (list){{"flip 1", "center-crop 4 6"}}, &field);
  for (uint32_t x = 0; x < 4; x++) cr_assert_eq(padded[(1 + x) * 3], 3 - x);
  free(padded);
}

/* ---- Numbers ----------------------------------------------------------------------------------------------------- */

Test(transforms, normalize_and_to_float_are_what_they_say) {
  tr_field field;
  static const float mean[] = {0.485f, 0.456f, 0.406f}, std[] = {0.229f, 0.224f, 0.225f};
  uint8_t *pixels = make_pixels(8, 9, 3, 0);
  float *scaled = (float *)one(8, 9, 3, (list){{"to-float"}}, &field);
  cr_assert(field.dtype == TR_F32 && field.bytes == 8 * 9 * 3 * sizeof(float));
  float *normal = (float *)one(8, 9, 3, (list){{"normalize imagenet"}}, &field);
  float *steps = (float *)one(8, 9, 3, (list){{"to-float", "normalize 0.5 0.25"}}, &field);
  float *named = (float *)one(8, 9, 3, (list){{"flip 1", "normalize mean 0.1 0.2 0.3 std 1 2 4"}}, &field);
  for (size_t i = 0; i < 8 * 9 * 3; i++) {
    const float x = (float)pixels[i] / 255.0f;
    cr_assert_eq(scaled[i], x);
    cr_assert_eq(normal[i], (x - mean[i % 3]) / std[i % 3]);
    cr_assert_eq(steps[i], (x - 0.5f) / 0.25f);
  }
  for (size_t x = 0; x < 9; x++) {
    cr_assert_eq(named[x * 3 + 2], ((float)pixels[(8 - x) * 3 + 2] / 255.0f - 0.3f) / 4.0f);
  }
  free(pixels);
  free(scaled);
  free(normal);
  free(steps);
  free(named);
}

Test(transforms, decode_makes_the_channels_that_are_asked_for) {
  tr_field field;
  uint8_t *rgb = one(3, 4, 1, (list){{"decode rgb"}}, &field);
  cr_assert(field.ndim == 3 && field.shape[2] == 3);
  for (size_t i = 0; i < 36; i++) cr_assert_eq(rgb[i], (i / 3) % 4);
  free(rgb);
  float *floats = (float *)one(3, 4, 1, (list){{"decode rgb", "flip 1", "to-float"}}, &field);
  for (size_t i = 0; i < 36; i++) cr_assert_eq(floats[i], (float)(3 - (i / 3) % 4) / 255.0f);
  free(floats);
  uint8_t *pixels = make_pixels(3, 4, 3, 0), *grey = one(3, 4, 3, (list){{"decode grey"}}, &field);
  cr_assert_eq(field.shape[2], 1);
  for (size_t i = 0; i < 12; i++) {
    const uint8_t *p = pixels + 3 * i;
    cr_assert(fabs(0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2] - grey[i]) < 0.51);
  }
  free(grey);
  free(pixels);
}

/* ---- Chance ------------------------------------------------------------------------------------------------------ */

Test(transforms, random_crop_takes_each_window_of_the_padded_image) {
  tr_stores *stores = make_stores(NULL);
  put_images(stores, "memory://d/c.tar", PNG, 400, 6, 8, 3);
  const list l = {{"random-crop 7 8 pad 2"}};
  tr_field field;
  uint8_t *found = values(stores, "memory://d/c.tar", &l, 0, 1, &field);
  uint32_t seen[4][5] = {0};
  for (uint32_t id = 0; id < 400; id++) {
    const uint8_t *image = found + id * field.bytes;
    uint32_t matches = 0;
    for (int top = 0; top < 4; top++) {
      for (int left = 0; left < 5; left++) {
        bool same = true;
        for (int y = 0; y < 7; y++) {
          for (int x = 0; x < 8; x++) {
            const int from_y = top + y - 2, from_x = left + x - 2;
            const bool inside = from_y >= 0 && from_y < 6 && from_x >= 0 && from_x < 8;
            const uint8_t *p = image + (y * 8 + x) * 3;
            same = same && p[0] == (inside ? from_x : 0) && p[1] == (inside ? from_y : 0);
          }
        }
        if (same) seen[top][left]++;
        matches += same;
      }
    }
    cr_assert_eq(matches, 1, "sample %u", id);
  }
  for (int top = 0; top < 4; top++) {
    for (int left = 0; left < 5; left++) cr_assert(seen[top][left] > 5 && seen[top][left] < 45);
  }
  free(found);
  tr_stores_destroy(stores);
}

/* Where the crop was, from the colours at the edges of what it became. */
static void box_of(const uint8_t *image, uint32_t side, double *height, double *width) {
  double left = 0, right = 0, top = 0, bottom = 0;
  for (uint32_t i = 0; i < side; i++) {
    left += image[(i * side) * 3];
    right += image[(i * side + side - 1) * 3];
    top += image[i * 3 + 1];
    bottom += image[((side - 1) * side + i) * 3 + 1];
  }
  *width = (right - left) / side * side / (side - 1);
  *height = (bottom - top) / side * side / (side - 1);
}

Test(transforms, random_resized_crop_keeps_to_its_area_and_ratio) {
  tr_stores *stores = make_stores(NULL);
  put_images(stores, "memory://d/r.tar", PNG, 300, 200, 240, 3);
  const list l = {{"random-resized-crop 16 scale 0.2 0.6 ratio 0.5 2"}};
  tr_field field;
  uint8_t *found = values(stores, "memory://d/r.tar", &l, 0, 2, &field);
  double least_area = 1, most_area = 0, least_ratio = 9, most_ratio = 0;
  for (uint32_t id = 0; id < 300; id++) {
    double height, width;
    box_of(found + id * field.bytes, 16, &height, &width);
    const double area = height * width / (200.0 * 240.0), ratio = width / height;
    least_area = area < least_area ? area : least_area;
    most_area = area > most_area ? area : most_area;
    least_ratio = ratio < least_ratio ? ratio : least_ratio;
    most_ratio = ratio > most_ratio ? ratio : most_ratio;
  }
  cr_assert(least_area > 0.17 && least_area < 0.25, "%g", least_area);
  cr_assert(most_area > 0.53 && most_area < 0.65, "%g", most_area);
  cr_assert(least_ratio > 0.45 && least_ratio < 0.6, "%g", least_ratio);
  cr_assert(most_ratio > 1.7 && most_ratio < 2.2, "%g", most_ratio);
  free(found);
  tr_stores_destroy(stores);
}

Test(transforms, random_resized_crop_takes_the_middle_where_nothing_fits) {
  tr_field field;
  uint8_t *found = one(10, 200, 3, (list){{"random-resized-crop 10 scale 1 1 ratio 0.5 2"}}, &field);
  double height, width;
  box_of(found, 10, &height, &width);
  cr_assert(fabs(width - 20) < 2, "%g", width);
  cr_assert(fabs((found[0] + found[9 * 3]) / 2.0 - 99.5) < 1);
  free(found);
}

/* Bits that every machine must make: a change here changes what runs see of their data. */
Test(transforms, the_bits_are_the_same_on_every_machine) {
  static const struct {
    list l;
    uint32_t crc32c;
  } pinned[] = {{{{"resize 50 40"}}, 0x66639ED6u},
                {{{"random-resized-crop 32"}}, 0xF2FD47B5u},
                {{{"random-resized-crop 20 30 scale 0.1 0.3 ratio 1 3", "flip", "normalize imagenet"}}, 0xD7161BEFu},
                {{{"random-crop 70 pad 4", "flip 0.3", "to-float"}}, 0x3C45BD46u}};
  tr_stores *stores = make_stores(NULL);
  put_images(stores, "memory://d/p.tar", PNG, 20, 70, 90, 3);
  for (size_t i = 0; i < sizeof pinned / sizeof *pinned; i++) {
    tr_field field;
    uint8_t *found = values(stores, "memory://d/p.tar", &pinned[i].l, 3, 1, &field);
    const uint32_t crc = tr_crc32c(0, found, 20 * field.bytes);
    cr_expect_eq(crc, pinned[i].crc32c, "%s...: %08X", pinned[i].l.specs[0], crc);
    free(found);
  }
  tr_stores_destroy(stores);
}

Test(transforms, draws_depend_on_seed_epoch_and_sample_alone) {
  tr_stores *stores = make_stores(NULL);
  put_images(stores, "memory://d/t.tar", PNG, 30, 40, 50, 3);
  const list l = {{"random-resized-crop 16", "flip"}};
  tr_field field;
  uint8_t *first = values(stores, "memory://d/t.tar", &l, 0, 1, &field);
  uint8_t *threads = values(stores, "memory://d/t.tar", &l, 0, 4, &field);
  uint8_t *later = values(stores, "memory://d/t.tar", &l, 1, 1, &field);
  cr_assert_eq(memcmp(first, threads, 30 * field.bytes), 0);
  uint32_t same = 0;
  for (uint32_t id = 0; id < 30; id++) {
    same += memcmp(first + id * field.bytes, later + id * field.bytes, field.bytes) == 0;
    if (id > 0) cr_assert_neq(memcmp(first, first + id * field.bytes, field.bytes), 0);
  }
  cr_assert_eq(same, 0);
  free(first);
  free(threads);
  free(later);
  tr_stores_destroy(stores);
}

Test(transforms, another_transform_does_not_shift_the_draws_of_the_others) {
  tr_stores *stores = make_stores(NULL);
  put_images(stores, "memory://d/s.tar", PNG, 20, 40, 50, 3);
  const list alone = {{"random-crop 30"}}, with = {{"flip 0", "decode", "random-crop 30", "flip 0"}};
  tr_field field;
  uint8_t *a = values(stores, "memory://d/s.tar", &alone, 0, 1, &field);
  uint8_t *b = values(stores, "memory://d/s.tar", &with, 0, 1, &field);
  cr_assert_eq(memcmp(a, b, 20 * field.bytes), 0);
  free(a);
  free(b);
  tr_stores_destroy(stores);
}

Test(transforms, flips_are_as_often_as_asked_for_and_each_draws_for_itself) {
  tr_stores *stores = make_stores(NULL);
  put_images(stores, "memory://d/f.tar", PNG, 400, 2, 3, 3);
  tr_field field;
  const list once = {{"flip 0.25"}}, twice = {{"flip", "flip"}};
  uint8_t *a = values(stores, "memory://d/f.tar", &once, 0, 1, &field);
  uint8_t *b = values(stores, "memory://d/f.tar", &twice, 0, 1, &field);
  uint32_t flipped = 0, both = 0;
  for (uint32_t id = 0; id < 400; id++) {
    flipped += a[id * field.bytes] == 2;
    both += b[id * field.bytes] == 2;
  }
  cr_assert(flipped > 70 && flipped < 130, "%u", flipped);
  cr_assert(both > 160 && both < 240, "%u", both);
  free(a);
  free(b);
  tr_stores_destroy(stores);
}

/* ---- JPEG -------------------------------------------------------------------------------------------------------- */

static bytes png_of_jpeg(tr_stores *stores, const char *url, uint32_t height, uint32_t width) {
  tr_field field;
  uint8_t *pixels = values(stores, url, &(list){{NULL}}, 0, 1, &field);
  bytes png = make_png(height, width, 3, pixels);
  free(pixels);
  return png;
}

Test(transforms, a_part_of_a_jpeg_is_what_the_whole_would_have_there) {
  tr_stores *stores = make_stores(NULL);
  bytes jpegs = {0}, pngs = {0};
  put_images(stores, "memory://d/one.tar", JPEG, 1, 210, 235, 3);
  bytes png = png_of_jpeg(stores, "memory://d/one.tar", 210, 235);
  bytes jpeg = make_image(JPEG, 210, 235, 3);
  for (uint32_t i = 0; i < 60; i++) {
    add_image(&pngs, PNG, i, png);
    add_image(&jpegs, JPEG, i, jpeg);
  }
  tar_end(&jpegs);
  tar_end(&pngs);
  put_bytes(stores, "memory://d/j.tar", jpegs);
  put_bytes(stores, "memory://d/p.tar", pngs);
  tr_field field;
  const list same = {{"random-resized-crop 150 scale 0.05 1"}}, smaller = {{"random-resized-crop 20 scale 0.5 1"}};
  uint8_t *a = values(stores, "memory://d/j.tar", &same, 0, 1, &field);
  uint8_t *b = values(stores, "memory://d/p.tar", &same, 0, 1, &field);
  cr_assert_eq(memcmp(a, b, 60 * field.bytes), 0);
  free(a);
  free(b);
  /* Decoded at an eighth: not the same, and near. */
  a = values(stores, "memory://d/j.tar", &smaller, 0, 1, &field);
  b = values(stores, "memory://d/p.tar", &smaller, 0, 1, &field);
  double sum = 0;
  for (size_t i = 0; i < 60 * field.bytes; i++) sum += abs(a[i] - b[i]);
  cr_assert(sum > 0 && sum / (60.0 * (double)field.bytes) < 6, "%g", sum / (60.0 * (double)field.bytes));
  free(a);
  free(b);
  bytes_free(&png);
  bytes_free(&jpeg);
  bytes_free(&jpegs);
  bytes_free(&pngs);
  tr_stores_destroy(stores);
}

/* ---- Sizes that differ, and mistakes ----------------------------------------------------------------------------- */

static void put_sizes(tr_stores *stores, const char *url) {
  bytes tar = {0};
  for (uint32_t i = 0; i < 12; i++) {
    bytes image = make_image(PNG, 20 + 7 * (i % 5), 30 + 3 * (i % 4), 3);
    add_image(&tar, PNG, i, image);
    bytes_free(&image);
  }
  tar_end(&tar);
  put_bytes(stores, url, tar);
  bytes_free(&tar);
}

Test(transforms, images_may_differ_in_size_where_a_transform_decides_one) {
  tr_stores *stores = make_stores(NULL);
  put_sizes(stores, "memory://d/v.tar");
  const list lists[] = {{{"random-resized-crop 16"}},
                        {{"resize 18", "center-crop 16"}},
                        {{"flip", "random-crop 16"}},
                        {{"resize 16 16"}}};
  for (size_t i = 0; i < 4; i++) {
    tr_field field;
    free(values(stores, "memory://d/v.tar", &lists[i], 0, 1, &field));
    cr_assert(field.shape[0] == 16 && field.shape[1] == 16);
  }
  tr_stores_destroy(stores);
}

static tr_status read_all(tr_stores *stores, const char *url, list l, tr_error *e) {
  run r;
  tr_status status = open_run(&r, stores, url, &l, 0, 1, e);
  uint8_t *value = malloc(1 << 20);
  void *const to[] = {value};
  for (uint64_t id = 0; status == TR_OK && id < tr_dataset_size(r.dataset); id++) {
    status = tr_dataset_read(r.dataset, id, to, e);
  }
  free(value);
  if (r.device != NULL) close_run(&r);
  return status;
}

Test(transforms, images_that_differ_in_size_say_what_would_help) {
  tr_stores *stores = make_stores(NULL);
  tr_error e = {0};
  put_sizes(stores, "memory://d/v.tar");
  EXPECT_FAIL(read_all(stores, "memory://d/v.tar", (list){{NULL}}, &e), TR_ERR_CORRUPT, "random-resized-crop N");
  EXPECT_FAIL(read_all(stores, "memory://d/v.tar", (list){{"flip"}}, &e), TR_ERR_CORRUPT, "center-crop");
  EXPECT_FAIL(read_all(stores, "memory://d/v.tar", (list){{"resize 16"}}, &e), TR_ERR_CORRUPT, "sample '000001'");
  EXPECT_FAIL(read_all(stores, "memory://d/v.tar", (list){{"random-crop 25"}}, &e), TR_ERR_CORRUPT, "give it a pad");
  tr_stores_destroy(stores);
}

Test(transforms, a_spec_that_is_wrong_is_named_with_what_it_takes) {
  static const struct {
    list l;
    const char *says;
  } wrong[] = {
      {{{"random-resize-crop 16"}}, "near it is 'random-resized-crop': random-resized-crop N or HEIGHT WIDTH"},
      {{{"blur 3"}}, "there are decode, resize, center-crop"},
      {{{""}}, "not a word"},
      {{{"resize"}}, "resize N (of the shorter side)"},
      {{{"resize 0"}}, "wrong at 0"},
      {{{"resize 20000"}}, "wrong at 20000"},
      {{{"resize 10 10 10"}}, "wrong at 10"},
      {{{"center-crop x"}}, "wrong at x"},
      {{{"random-crop 10 pad"}}, "wrong at its end"},
      {{{"random-resized-crop 16 scale 0.5"}}, "scale LOW HIGH"},
      {{{"random-resized-crop 16 scale 0.5 2"}}, "scale LOW HIGH"},
      {{{"random-resized-crop 16 scale 0.6 0.5"}}, "scale LOW HIGH"},
      {{{"random-resized-crop 16 ratio 0 1"}}, "ratio LOW HIGH"},
      {{{"flip 2"}}, "flip PROBABILITY"},
      {{{"flip nan"}}, "flip PROBABILITY"},
      {{{"normalize"}}, "normalize imagenet"},
      {{{"normalize 0.5"}}, "normalize imagenet"},
      {{{"normalize mean 0 std 0"}}, "normalize imagenet"},
      {{{"normalize 1 2 1 1"}}, "values for 2 channels, the images of field 'png' have 3"},
      {{{"to-float", "flip"}}, "put it before normalize"},
      {{{"to-float", "to-float"}}, "floats by then"},
      {{{"decode cmyk"}}, "decode rgb"},
  };
  tr_stores *stores = make_stores(NULL);
  put_images(stores, "memory://d/w.tar", PNG, 2, 20, 20, 3);
  put_numbered(stores, "memory://d/n", 0, 5);
  tr_error e = {0};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    EXPECT_FAIL(read_all(stores, "memory://d/w.tar", wrong[i].l, &e), TR_ERR_CONFIG, wrong[i].says);
    if (wrong[i].l.specs[0][0] != '\0') cr_assert_not_null(strstr(e.message, "transform \""));
  }
  const tr_field_source fields[] = {{"id", "-id"}, {"pixels", "-pixels"}};
  const char *url = "memory://d/n", *const flip[] = {"flip"};
  const tr_dataset_options options = {.struct_bytes = sizeof options,
                                      .stores = stores,
                                      .urls = &url,
                                      .url_count = 1,
                                      .format = "idx",
                                      .fields = fields,
                                      .field_count = 2,
                                      .transforms = flip,
                                      .transform_count = 1};
  tr_dataset *dataset = NULL;
  EXPECT_FAIL(tr_dataset_open(&options, &dataset, &e), TR_ERR_CONFIG, "no field is an image");
  tr_stores_destroy(stores);
}

Test(transforms, a_header_that_promises_too_much_makes_no_room) {
  tr_stores *stores = make_stores(NULL);
  bytes tar = {0}, jpeg = make_image(JPEG, 16, 16, 3);
  tar_add(&tar, "0.jpg", jpeg.data, jpeg.count);
  for (size_t i = 0; i + 8 < jpeg.count; i++) {
    if (jpeg.data[i] == 0xFF && jpeg.data[i + 1] == 0xC0) memset(jpeg.data + i + 5, 0xFE, 4);
  }
  tar_add(&tar, "1.jpg", jpeg.data, jpeg.count);
  tar_end(&tar);
  put_bytes(stores, "memory://d/big.tar", tar);
  tr_error e = {0};
  EXPECT_FAIL(read_all(stores, "memory://d/big.tar", (list){{"random-resized-crop 8"}}, &e), TR_ERR_CORRUPT,
              "more than its");
  bytes_free(&jpeg);
  bytes_free(&tar);
  tr_stores_destroy(stores);
}
