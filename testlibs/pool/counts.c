// Needs `counter.c`.
extern int count(void);
static int own;
int run(void) { return count() == ++own ? 41 + own : 0; }
