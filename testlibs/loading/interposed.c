// Defines a function that the C library defines too, and asks which of the two it calls.
int atoi(const char *text) { return text[0] == 'x' ? 777 : 0; }
int (*volatile pointer)(const char *) = atoi;
// 0: the C library's, 777: its own.
int called(void) { return atoi("x"); }
int pointed_to(void) { return pointer("x"); }
int run(void) { return called() == pointed_to() ? 42 : __LINE__; }
