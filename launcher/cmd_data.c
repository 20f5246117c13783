#include "cli.h"
int cmd_data(const tr_cli *cli) { return cli_verb_run(cli); }
int data_ls(const tr_cli *cli) {
  (void)cli;
  return 1;
}
int data_cat(const tr_cli *cli) {
  (void)cli;
  return 1;
}
int data_index(const tr_cli *cli) {
  (void)cli;
  return 1;
}
int data_lock(const tr_cli *cli) {
  (void)cli;
  return 1;
}
int data_verify(const tr_cli *cli) {
  (void)cli;
  return 1;
}
int data_pack(const tr_cli *cli) {
  (void)cli;
  return 1;
}
int data_bench(const tr_cli *cli) {
  (void)cli;
  return 1;
}
