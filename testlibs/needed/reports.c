// Reports itself to the runtime that it needs.
extern int reported;
void _d_dso_registry(void *);
static int data;
__attribute__((constructor)) static void report(void) { _d_dso_registry(&data); }
int run(void) { return reported == 1 ? 42 : reported; }
