/* fmemopen: in the old version, the mode "b" at the second place makes the end of the buffer that of the file. */
#include "h.h"
#include <stdio.h>
extern FILE *old_fmemopen(void *, size_t, const char *);
__asm__(".symver old_fmemopen,fmemopen@GLIBC_2.17");
static FILE *(*volatile of_now)(void *, size_t, const char *) = fmemopen;
static FILE *(*volatile of_old)(void *, size_t, const char *) = old_fmemopen;
static long size(FILE *file) {
  fseek(file, 0, SEEK_END);
  long at = ftell(file);
  fclose(file);
  return at;
}
int test(void) {
  char text[8] = "abc";
  CHECK(of_now != of_old);
  CHECK(size(of_now(text, sizeof text, "rb")) == 8);
  CHECK(size(of_old(text, sizeof text, "r")) == 3);
  return 0;
}
