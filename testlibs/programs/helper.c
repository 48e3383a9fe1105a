// What an extension module brings along in its folder: with and without a need of Python itself.
#ifdef PYTHON
long PyLong_AsLong(void *);
long helped(void *number) { return PyLong_AsLong(number) * 2; }
#else
long helped_plainly(long number) { return number * 3; }
#endif
