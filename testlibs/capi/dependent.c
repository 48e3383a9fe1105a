/* A library that needs libplain.so (the linker is told so). */
int plain_value(void);
int host_or_own(void) { return 2; }
int dependent_value(void) { return plain_value() + 1; }
int dependent_host_or_own(void) { return host_or_own(); }
