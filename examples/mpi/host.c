/* An MPI program whose work arrives as a library.
 *
 *     mpirun -n 4 host broadcast libensemble.so    rank 0 reads the file; the others get the bytes, and open no file
 *     mpirun -n 4 host file libensemble.so         each rank opens the file with dlopen
 *
 * Rank 0 prints the result, and how long it took from the start until the last rank had the library loaded. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memdl.h>
#include <mpi.h>

typedef double (*integrate_function)(long steps);

/* Where one rank fails, all end. */
static void *check(void *pointer, const char *what, const char *(*error)(void)) {
    if (!pointer) {
        const char *text = error ? error() : NULL;
        fprintf(stderr, "%s: %s\n", what, text ? text : "failed");
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
    return pointer;
}

static const char *dl_error(void) { return dlerror(); }

/* The size of the file that rank 0 has opened, or 0 in other ranks. */
static size_t size_of(FILE *file) {
    if (!file || fseek(file, 0, SEEK_END) != 0) return 0;
    long end = ftell(file);
    rewind(file);
    return end < 0 ? 0 : (size_t)end;
}

/* Rank 0 reads the library. All get it into a buffer, where it then runs. */
static memdl_library *load_broadcast(const char *path, int rank) {
    FILE *file = NULL;
    if (rank == 0) file = check(fopen(path, "rb"), path, NULL);
    unsigned long size = size_of(file);
    MPI_Bcast(&size, 1, MPI_UNSIGNED_LONG, 0, MPI_COMM_WORLD);
    memdl_buffer *buffer = check(memdl_buffer_new(size), "memdl", memdl_error);
    if (file && fread(memdl_buffer_data(buffer), 1, size, file) != size) check(NULL, path, NULL);
    if (file) fclose(file);
    /* MPI counts with an int: a library is sent in pieces of at most 1 GiB. */
    const unsigned long piece = 1ul << 30;
    for (unsigned long start = 0; start < size; start += piece) {
        int count = (int)(size - start < piece ? size - start : piece);
        MPI_Bcast((char *)memdl_buffer_data(buffer) + start, count, MPI_BYTE, 0, MPI_COMM_WORLD);
    }
    memdl_options *options = check(memdl_options_new(), "memdl", memdl_error);
    if (memdl_options_set_name(options, "ensemble") != 0) check(NULL, "memdl", memdl_error);
    memdl_library *library = check(memdl_open_buffer(buffer, options), "memdl", memdl_error);
    memdl_options_free(options);
    return library;
}

int main(int argc, char **argv) {
    MPI_Init(&argc, &argv);
    int rank, ranks;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (argc != 3) {
        if (rank == 0) fprintf(stderr, "usage: host broadcast|file LIBRARY\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    int broadcast = strcmp(argv[1], "broadcast") == 0;

    MPI_Barrier(MPI_COMM_WORLD);
    double start = MPI_Wtime();
    memdl_library *library = NULL;
    void *handle = NULL;
    integrate_function integrate;
    if (broadcast) {
        library = load_broadcast(argv[2], rank);
        integrate = (integrate_function)memdl_sym_function(library, "integrate");
        check(integrate ? library : NULL, "memdl", memdl_error);
    } else {
        handle = check(dlopen(argv[2], RTLD_NOW), "dlopen", dl_error);
        *(void **)&integrate = check(dlsym(handle, "integrate"), "dlsym", dl_error);
    }
    double took = MPI_Wtime() - start, slowest = 0;
    MPI_Reduce(&took, &slowest, 1, MPI_DOUBLE, MPI_MAX, 0, MPI_COMM_WORLD);

    double pi = integrate(10 * 1000 * 1000);
    if (rank == 0) printf("%s: %d ranks, loaded in %.0f us, pi is %.9f\n", argv[1], ranks, slowest * 1e6, pi);

    int failed = library ? memdl_close(library) != 0 : dlclose(handle);
    MPI_Finalize();
    return failed;
}
