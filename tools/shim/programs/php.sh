# PHP: its extensions.
# Packages: php-cli php-sqlite3 php-xml php-mbstring php-gd
set -eu
[ "$1" = run ] || exit 0
php -m
cat >x.php <<'END'
<?php
$db = new PDO("sqlite::memory:");
$db->exec("create table t (x)");
for ($i = 1; $i <= 100; $i++) $db->exec("insert into t values ($i)");
echo $db->query("select sum(x) from t")->fetchColumn(), "\n";
$document = new DOMDocument();
$document->loadXML("<a><b>1</b></a>");
echo (new DOMXPath($document))->evaluate("string(//b)"), " ", mb_strtoupper("café"), "\n";
$image = imagecreatetruecolor(20, 10);
imagefilledellipse($image, 10, 5, 8, 8, 0xff0000);
ob_start(); imagepng($image); echo md5(ob_get_clean()), "\n";
echo ctype_alpha("abc") ? "alpha" : "not", " ", iconv("UTF-8", "ISO-8859-1", "é") === "\xe9" ? "iconv" : "not", "\n";
echo token_name(token_get_all("<?php echo 1;")[0][0]), " ", count((new SimpleXMLElement("<a><b/><b/></a>"))->b), "\n";
echo FFI::cdef("unsigned long strlen(const char *s);")->strlen("memory"), "\n";
try { new PDO("none:"); } catch (PDOException $error) { echo $error->getMessage(), "\n"; }
$pid = pcntl_fork();
if (!$pid) { echo "child\n"; exit(3); }
pcntl_waitpid($pid, $status);
echo pcntl_wexitstatus($status), "\n";
END
php -d ffi.enable=1 x.php
php --ri gd | grep -v -i version
