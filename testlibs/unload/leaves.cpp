// Thread-local objects, plain thread-local variables, and values of a key: a thread that leaves keeps none.
#include <cstdlib>
#include <dlfcn.h>
#include <pthread.h>
#include <string>
static void (*event)(int letter);
extern "C" void report_to(void (*to)(int)) { event = to; }
static thread_local int counter = 5;
static thread_local char block[100];
struct Object {
    char letter;
    std::string text = "an object of a thread, with memory of its own";
    explicit Object(char letter) : letter(letter) {}
    ~Object() { event(text.size() == 45 && counter > 5 ? letter : '!'); }
};
static thread_local Object first('1'), second('2');
static pthread_key_t key;
// It uses variables of its thread, and so comes before they are freed.
static void free_value(void *value) {
    event(counter > 5 && second.letter == '2' ? 'k' : '!');
    std::free(value);
}
static struct Key {
    Key() { pthread_key_create(&key, free_value); }
    ~Key() { pthread_key_delete(key); }
} of_threads;

// 6, 7, 8, ... for each thread.
extern "C" int use() {
    if (block[99] != (counter > 5)) return -1;
    block[99] = 1;
    if (!pthread_getspecific(key)) pthread_setspecific(key, std::malloc(100));
    return second.letter == '2' && first.letter == '1' ? ++counter : -2;
}

// An extension calls this, so that only an image can open it.
extern "C" void tell(int letter) { event(letter); }
static void *extension;
extern "C" int opens(const char *path) {
    extension = dlopen(path, RTLD_NOW);
    int (*use)() = extension ? (int (*)())dlsym(extension, "extension_use") : nullptr;
    return use ? use() : -1;
}
extern "C" int closes() { return dlclose(extension); }

#ifdef AT_UNLOAD
// A thread-local object that is first used while the library is unloaded.
struct Late {
    int number = 0;
    ~Late() { event(number == 1 && counter > 0 ? 'l' : '!'); }
};
static Late &late() {
    static thread_local Late it;
    return it;
}
static struct Last {
    ~Last() {
        if (!event) return;
        late().number++;
        event(counter == 5 ? 's' : '!');
    }
} last;
#endif
