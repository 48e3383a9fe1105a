/* A library that needs nothing, without a DT_SONAME and versions; another can need it. */
int plain_value(void) { return 41; }
int shared_name(void) { return 1; }
