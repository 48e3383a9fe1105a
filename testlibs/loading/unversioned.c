// A reference without a version to what has versions in the library that it meets.
int number(void);
int which(void) { return number(); }
