// Two libraries that need each other: one with -DFIRST, one without.
#ifdef FIRST
int count;
int second_counts(void);
int first_counts(void) { return ++count; }
int run(void) { return first_counts() == 1 && second_counts() == 2 && count == 2 ? 42 : count; }
#else
extern int count;
int first_counts(void);
int second_counts(void) { return first_counts() == count ? count : -1; }
#endif
