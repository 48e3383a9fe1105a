/* glob with functions of the caller: the old version asks what a name is with its `stat`, the new one with its
   `lstat`. */
#include "h.h"
#include <glob.h>
#include <string.h>
#include <sys/stat.h>
extern int old_glob(const char *, int, int (*)(const char *, int), glob_t *);
__asm__(".symver old_glob,glob@GLIBC_2.17");
static int stats, lstats;
static int by_stat(const char *name, struct stat *to) { return stats++, stat(name, to); }
static int by_lstat(const char *name, struct stat *to) { return lstats++, lstat(name, to); }
int test(void) {
  glob_t found;
  memset(&found, 0, sizeof found);
  found.gl_stat = by_stat;
  found.gl_lstat = by_lstat;
  CHECK(old_glob("/", GLOB_ALTDIRFUNC, NULL, &found) == 0 && found.gl_pathc == 1);
  CHECK(stats > 0 && lstats == 0);
  globfree(&found);
  stats = 0;
  CHECK(glob("/", GLOB_ALTDIRFUNC, NULL, &found) == 0 && found.gl_pathc == 1);
  CHECK(lstats > 0);
  globfree(&found);
  return 0;
}
