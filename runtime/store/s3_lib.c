/* Opening libcurl and libcrypto: see s3_lib.h. */
#include "s3_lib.h"

#include <dlfcn.h>
#include <openssl/opensslv.h>

#define TEXT_OF(number) #number
#define TEXT(number)    TEXT_OF(number)

static const char curl_name[] = "libcurl.so.4";
static const char crypto_name[] = "libcrypto.so." TEXT(OPENSSL_SHLIB_VERSION);

enum { OLDEST_CURL = 0x075500 }; /* 7.85: thread-safe initialisation, CURLOPT_PROTOCOLS_STR */

static tr_status open_library(const char *name, const char *package, void **out, tr_error *error) {
  *out = dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NODELETE);
  if (*out != NULL) return TR_OK;
  return tr_fail(error, TR_ERR_UNAVAILABLE, "s3 needs %s: %s; install it (Debian: apt-get install %s)", name, dlerror(),
                 package);
}

/* dlsym gives an object pointer; POSIX says that it may be read as a function's. */
static tr_status find(void *library, const char *library_name, const char *name, void **slot, tr_error *error) {
  *slot = dlsym(library, name);
  if (*slot != NULL) return TR_OK;
  return tr_fail(error, TR_ERR_UNAVAILABLE, "s3: the %s of this machine is too old: it has no %s", library_name, name);
}

tr_status s3_lib_open(s3_lib *lib, tr_error *error) {
  void *curl = NULL, *crypto = NULL;
  s3_lib made;
  TR_TRY(open_library(curl_name, "libcurl4", &curl, error));
  TR_TRY(open_library(crypto_name, "libssl3", &crypto, error));
#define S3_FIND(name) TR_TRY(find(curl, curl_name, "curl_" #name, (void **)&made.name, error));
  S3_CURL_FUNCTIONS(S3_FIND)
#undef S3_FIND
#define S3_FIND(name) TR_TRY(find(crypto, crypto_name, #name, (void **)&made.name, error));
  S3_CRYPTO_FUNCTIONS(S3_FIND)
#undef S3_FIND
  const curl_version_info_data *version = made.version_info(CURLVERSION_NOW);
  if (version->version_num < OLDEST_CURL || (version->features & CURL_VERSION_THREADSAFE) == 0) {
    return tr_fail(error, TR_ERR_UNAVAILABLE, "s3 needs libcurl 7.85 or newer, this machine has %s", version->version);
  }
  const CURLcode code = made.global_init(CURL_GLOBAL_DEFAULT);
  if (code != CURLE_OK) {
    return tr_fail(error, TR_ERR_UNAVAILABLE, "s3: libcurl does not start: %s", made.easy_strerror(code));
  }
  *lib = made;
  return TR_OK;
}

void s3_lib_close(s3_lib *lib) {
  if (lib->global_cleanup != NULL) lib->global_cleanup();
}
