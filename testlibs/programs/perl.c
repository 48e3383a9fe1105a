// Perl as a library. The declarations are those of perl.h and proto.h for an interpreter with
// threads (`perl_alloc` to `perl_free` are documented in perlembed).
#include <string.h>

typedef struct interpreter PerlInterpreter;
typedef struct sv SV;
typedef struct cv CV;

void Perl_sys_init3(int *, char ***, char ***);
void Perl_sys_term(void);
PerlInterpreter *perl_alloc(void);
void perl_construct(PerlInterpreter *);
int perl_parse(PerlInterpreter *, void (*)(PerlInterpreter *), int, char **, char **);
int perl_run(PerlInterpreter *);
int perl_destruct(PerlInterpreter *);
void perl_free(PerlInterpreter *);
SV *Perl_eval_pv(PerlInterpreter *, const char *, int);
char *Perl_sv_2pv_flags(PerlInterpreter *, SV *, unsigned long *, unsigned);
CV *Perl_newXS(PerlInterpreter *, const char *, void (*)(PerlInterpreter *, CV *), const char *);
void Perl_set_context(void *);
void boot_DynaLoader(PerlInterpreter *, CV *);

static void xs_init(PerlInterpreter *perl) {
    Perl_newXS(perl, "DynaLoader::boot_DynaLoader", boot_DynaLoader, __FILE__);
}

static int is(PerlInterpreter *perl, const char *code, const char *expected) {
    Perl_set_context(perl);
    SV *value = Perl_eval_pv(perl, code, 0);
    const char *text = Perl_sv_2pv_flags(perl, value, 0, 2);
    return text && !strcmp(text, expected);
}

static PerlInterpreter *start(void) {
    static char *arguments[] = {"perl", "-e", "our $started = 40 + 2;", 0};
    PerlInterpreter *perl = perl_alloc();
    Perl_set_context(perl);
    perl_construct(perl);
    if (perl_parse(perl, xs_init, 3, arguments, 0) || perl_run(perl)) return 0;
    return perl;
}

int run(void) {
    static char *none[] = {"perl", 0};
    int argc = 1;
    char **argv = none, **env = 0;
    extern char **environ;
    env = environ;
    Perl_sys_init3(&argc, &argv, &env);
    PerlInterpreter *one = start(), *two = start();
    if (!one || !two) return 1;
    if (!is(one, "$started", "42")) return 2;
    // Regular expressions, hashes, closures, die.
    if (!is(one,
            "my %n; $n{lc $1}++ while 'The cat the dog THE end' =~ /(\\w+)/g;"
            "join ',', map {\"$_=$n{$_}\"} sort keys %n", "cat=1,dog=1,end=1,the=3"))
        return 3;
    if (!is(one, "eval { die {code => 7} }; $@->{code} * 6", "42")) return 4;
    // Modules whose compiled half is a file that needs libperl's symbols.
    if (!is(one, "require List::Util; List::Util::sum(1 .. 100)", "5050")) return 5;
    if (!is(one, "require POSIX; POSIX::strftime('%Y-%m-%d', gmtime(86400))", "1970-01-02"))
        return 6;
    if (!is(one, "require Digest::SHA; Digest::SHA::sha1_hex('abc')",
            "a9993e364706816aba3e25717850c26c9cd0d89d"))
        return 7;
    // The two interpreters of one libperl know nothing of each other.
    if (!is(two, "defined $INC{'POSIX.pm'} ? 1 : 0", "0")) return 8;
    if (!is(two, "require List::Util; List::Util::max(3, 42, 7)", "42")) return 9;
    if (!is(two, "eval { require No::Such::Module }; $@ =~ /^Can't locate No/ ? 1 : 0", "1"))
        return 10;
    if (!is(one, "List::Util::first(sub { $_ > 41 }, 40 .. 50)", "42")) return 11;
    PerlInterpreter *all[] = {one, two};
    for (int i = 0; i < 2; i++) {
        Perl_set_context(all[i]);
        perl_destruct(all[i]);
        perl_free(all[i]);
    }
    Perl_sys_term();
    return 42;
}
