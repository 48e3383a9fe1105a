// A call of a function that the host defines.
extern int number(void);

int calls(void) { return number(); }
