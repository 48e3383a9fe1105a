// Refers to the library that was loaded last, and to what no library defines.

extern int in_the_last(void);
extern int in_none(void) __attribute__((weak));

int use(void) { return in_the_last() + (in_none ? in_none() : 0); }
