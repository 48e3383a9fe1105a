/* What tests/capi loads. It is linked with plugin.map, which versions `versioned`. */

/* From the host: given with memdl_options_define and memdl_options_set_resolver. */
int capi_defined(int);
int capi_resolved(void);
int capi_optional(void) __attribute__((weak));

int plugin_data = 5;
__thread int plugin_thread_local = 7;

int plugin_function(int x) { return capi_defined(x) + capi_resolved() + plugin_data; }
int plugin_has_optional(void) { return capi_optional != 0; }
int plugin_set_thread_local(int value) { return plugin_thread_local = value; }

int versioned_old(void) { return 1; }
int versioned_new(void) { return 2; }
__asm__(".symver versioned_old, versioned@PLUGIN_1");
__asm__(".symver versioned_new, versioned@@PLUGIN_2");

/* Counts in the host how often it is started and ended. */
extern int capi_started, capi_ended;
__attribute__((constructor)) static void start(void) { capi_started++; }
__attribute__((destructor)) static void end(void) { capi_ended++; }
