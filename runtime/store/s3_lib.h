/* libcurl and libcrypto, loaded when the first bucket is opened: linked, they would cost every process of every local job
 * three milliseconds and six megabytes (decision 0041). A store holds a table of its own; the two libraries stay in the
 * process once they are there. */
#ifndef TRAINRUN_STORE_S3_LIB_H
#define TRAINRUN_STORE_S3_LIB_H

#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>
#include <openssl/evp.h>
#include <trainrun/base.h>

#define S3_CURL_FUNCTIONS(X)                                                                                           \
  X(global_init)                                                                                                       \
  X(global_cleanup)                                                                                                    \
  X(version_info)                                                                                                      \
  X(getdate)                                                                                                           \
  X(easy_init)                                                                                                         \
  X(easy_cleanup)                                                                                                      \
  X(easy_setopt)                                                                                                       \
  X(easy_getinfo)                                                                                                      \
  X(easy_strerror)                                                                                                     \
  X(easy_perform)                                                                                                      \
  X(multi_init)                                                                                                        \
  X(multi_cleanup)                                                                                                     \
  X(multi_setopt)                                                                                                      \
  X(multi_add_handle)                                                                                                  \
  X(multi_remove_handle)                                                                                               \
  X(multi_info_read)                                                                                                   \
  X(multi_socket_action)

#define S3_CRYPTO_FUNCTIONS(X)                                                                                         \
  X(EVP_Q_digest)                                                                                                      \
  X(EVP_Q_mac)

typedef struct s3_lib {
#define S3_MEMBER(name) __typeof__(curl_##name) *name;
  S3_CURL_FUNCTIONS(S3_MEMBER)
#undef S3_MEMBER
#define S3_MEMBER(name) __typeof__(name) *name;
  S3_CRYPTO_FUNCTIONS(S3_MEMBER)
#undef S3_MEMBER
} s3_lib;

/* TR_ERR_UNAVAILABLE with what to install. Each open has its close. */
tr_status s3_lib_open(s3_lib *lib, tr_error *error);
void s3_lib_close(s3_lib *lib);

#endif
