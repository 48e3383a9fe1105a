# Perl: all of its XS modules, DBI with SQLite.
# Packages: perl libdbi-perl libdbd-sqlite3-perl
set -eu
[ "$1" = run ] || exit 0
perl - <<'END'
use strict; use warnings;
use File::Find;
my %modules;
for my $folder (grep { -d "$_/auto" } @INC) {
    find(sub {
        return unless /\.so$/;
        my ($module) = $File::Find::name =~ m{auto/(.*)/[^/]+\.so$} or return;
        $module =~ s{/}{::}g;
        $modules{$module} = 1;
    }, "$folder/auto");
}
for my $module (sort keys %modules) {
    # These change how the program itself is compiled, or end it.
    next if $module =~ /^(attributes|re|threads|threads::shared|Devel::.*|arybase|mro|B|APR.*|Apache.*)$/;
    my $ok = eval "no warnings; require $module; 1";
    my ($why) = $@ =~ /^(.{0,60})/;
    print "$module ", $ok ? "loaded" : "not: $why", "\n";
}
use POSIX qw(floor strftime); use Socket; use List::Util qw(sum reduce shuffle); use Encode; use Digest::SHA qw(sha256_hex);
use Storable qw(freeze thaw); use Data::Dumper; use Time::HiRes; use MIME::Base64; use Compress::Zlib; use DBI; use Math::BigInt;
print floor(3.7), " ", strftime("%Y", gmtime(0)), " ", inet_ntoa(inet_aton("127.0.0.1")), "\n";
print sum(1 .. 10), " ", (reduce { $a * $b } 1 .. 6), "\n";
print length(encode("UTF-16", decode("UTF-8", "caf\xc3\xa9"))), " ", sha256_hex("x"), "\n";
print join(",", @{thaw(freeze([1, 2, 3]))}), " ", encode_base64("memory"), Dumper([1, {a => 2}]);
print length(uncompress(compress("a" x 10000))), " ", Math::BigInt->new(2)->bpow(200), "\n";
my $db = DBI->connect("dbi:SQLite:dbname=:memory:", "", "", {RaiseError => 1, PrintError => 0});
$db->do("create table t (x integer)");
$db->do("insert into t values (?)", undef, $_) for 1 .. 100;
print $db->selectrow_array("select sum(x) from t"), "\n";
eval { $db->do("select nothing") };
print $@ =~ /no such column/ ? "an error of SQLite\n" : "$@\n";
my $pid = fork();
if (!$pid) { print "child ", sha256_hex("y"), "\n"; exit 3; }
waitpid($pid, 0);
print "code ", $? >> 8, "\n";
END
perl -Mthreads -Mthreads::shared -e 'my $n :shared = 0; $_->join for map { threads->create(sub { lock($n); $n += $_[0] }, $_) } 1 .. 4; print "$n\n"'
