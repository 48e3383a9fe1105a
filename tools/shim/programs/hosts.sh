# libjvm, libgstreamer and libmpi, opened by a C program: AWT, fonts, sockets, a pipeline, MPI_Init.
# Packages: openjdk-17-jdk fontconfig gstreamer1.0-plugins-base libopenmpi-dev openmpi-bin gcc libc6-dev
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ "$1" = build ]; then
    # Main.class
    sh "$here/jvm.sh" build
    cat >jvm.c <<'END'
#include <dlfcn.h>
#include <jni.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *jvm = dlopen(argv[1], RTLD_NOW);
    if (!jvm) return puts(dlerror()), 1;
    jint (*create)(JavaVM **, void **, void *) = dlsym(jvm, "JNI_CreateJavaVM");
    JavaVMOption options[] = {{"-Xmx256m"}, {"-Djava.awt.headless=true"}, {"-Djava.class.path=."}};
    JavaVMInitArgs arguments = {JNI_VERSION_10, 3, options, 0};
    JavaVM *vm;
    JNIEnv *env;
    if (create(&vm, (void **)&env, &arguments)) return 2;
    jclass class = (*env)->FindClass(env, "Main");
    jmethodID run = (*env)->GetStaticMethodID(env, class, "main", "([Ljava/lang/String;)V");
    (*env)->CallStaticVoidMethod(env, class, run, NULL);
    if ((*env)->ExceptionCheck(env)) return (*env)->ExceptionDescribe(env), 3;
    return (*vm)->DestroyJavaVM(vm);
}
END
    cat >gst.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *gst = dlopen("libgstreamer-1.0.so.0", RTLD_NOW), *error = 0;
    if (!gst) return puts(dlerror()), 1;
    void (*init)(int *, char ***) = dlsym(gst, "gst_init");
    void *(*parse)(const char *, void **) = dlsym(gst, "gst_parse_launch");
    int (*set_state)(void *, int) = dlsym(gst, "gst_element_set_state");
    void *(*get_bus)(void *) = dlsym(gst, "gst_element_get_bus");
    void *(*pop)(void *, unsigned long, int) = dlsym(gst, "gst_bus_timed_pop_filtered");
    char *(*version)(void) = dlsym(gst, "gst_version_string");
    init(&argc, &argv);
    void *pipeline = parse(
        "videotestsrc num-buffers=20 ! video/x-raw,width=64,height=48 ! videoconvert ! theoraenc ! oggmux ! oggdemux !"
        " theoradec ! videoscale ! video/x-raw,width=32,height=24 ! filesink location=x.out"
        " audiotestsrc num-buffers=20 ! audioconvert ! audioresample ! vorbisenc ! fakesink", &error);
    if (!pipeline) return 2;
    /* PLAYING, until the end or an error. */
    printf("%s %d\n", version(), set_state(pipeline, 4));
    char *message = pop(get_bus(pipeline), -1UL, 3);
    printf("message %d\n", *(int *)(message + 64));
    set_state(pipeline, 1);
    return 0;
}
END
    cat >mpi.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *mpi = dlopen("libmpi.so.40", RTLD_NOW | RTLD_GLOBAL);
    if (!mpi) return puts(dlerror()), 1;
    int (*init)(int *, char ***) = dlsym(mpi, "MPI_Init");
    int (*get_rank)(void *, int *) = dlsym(mpi, "MPI_Comm_rank");
    int (*reduce)(void *, void *, int, void *, void *, void *) = dlsym(mpi, "MPI_Allreduce");
    int (*finalize)(void) = dlsym(mpi, "MPI_Finalize");
    void *world = dlsym(mpi, "ompi_mpi_comm_world");
    int rank, all = 0, one = 1, failed = init(&argc, &argv);
    get_rank(world, &rank);
    reduce(&one, &all, 1, dlsym(mpi, "ompi_mpi_int"), dlsym(mpi, "ompi_mpi_op_sum"), world);
    if (!rank) printf("%d rank %d sum %d\n", failed, rank, all);
    return finalize();
}
END
    home=$(dirname "$(dirname "$(readlink -f "$(command -v javac)")")")
    gcc -I"$home/include" -I"$home/include/linux" -o jvm jvm.c
    gcc -o gst gst.c
    gcc -o mpi mpi.c
    echo "$home/lib/server/libjvm.so" >libjvm
    exit 0
fi
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_btl_vader_single_copy_mechanism=none \
    OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_btl=self,vader
export GST_REGISTRY="$PWD/registry.bin" GST_REGISTRY_FORK=no HOME="$PWD" XDG_RUNTIME_DIR="$PWD"
./jvm "$(cat libjvm)"
./gst
cksum <x.out
./mpi
mpirun -np 2 ./mpi
