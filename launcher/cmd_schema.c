/* trainrun schema: the JSON Schema of job.toml, from the table of knobs. */
#include "cli.h"

#include <stdio.h>

int cmd_schema(const tr_cli *cli) {
  (void)cli;
  tr_writer writer;
  tr_writer_init(&writer, NULL);
  tr_config_write_schema(&writer);
  const bool good = !writer.failed && fwrite(writer.data, 1, writer.bytes, stdout) == writer.bytes &&
                    fflush(stdout) == 0;
  tr_writer_fini(&writer);
  if (!good) fprintf(stderr, "trainrun schema: cannot write\n");
  return good ? 0 : EXIT_UNAVAILABLE;
}
