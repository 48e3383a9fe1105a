# Ruby: its extensions.
# Packages: ruby
set -eu
[ "$1" = run ] || exit 0
ruby - <<'END'
folder = RbConfig::CONFIG["archdir"]
names = Dir.glob("**/*.so", base: folder).map { |file| file.delete_suffix(".so") }.sort
names.each do |name|
  begin
    require name
    puts "#{name} loaded"
  rescue LoadError, StandardError => error
    puts "#{name} #{error.class} #{error.message[0, 60]}"
  end
end
require "openssl"; require "zlib"; require "json"; require "digest"; require "socket"; require "psych"; require "bigdecimal"
require "fiddle"; require "ripper"; require "stringio"; require "date"; require "etc"; require "nkf"; require "strscan"
puts Zlib::Inflate.inflate(Zlib::Deflate.deflate("memory" * 100)).size, Digest::SHA256.hexdigest("x"), JSON.generate([1, {"a" => 2}])
puts OpenSSL::Digest.new("SHA512").hexdigest("x")[0, 20], BigDecimal("2").sqrt(30).to_s, Psych.dump({"a" => [1, 2]}), Date.new(2001, 2, 3).jd
key = OpenSSL::PKey::RSA.new(1024)
puts key.public_key.verify("SHA256", key.sign("SHA256", "x"), "x")
libc = Fiddle.dlopen(nil)
puts Fiddle::Function.new(libc["strlen"], [Fiddle::TYPE_VOIDP], Fiddle::TYPE_INT).call("memory")
begin
  Fiddle.dlopen("libnone.so")
rescue Fiddle::DLError => error
  puts error.message
end
puts Ripper.sexp("1 + 2").inspect[0, 60], "caf\u00e9".encode("UTF-16LE").bytesize, "x".encode("EUC-JP").encoding
begin
  JSON.parse("{")
rescue JSON::ParserError => error
  puts "a parser's error"
end
pid = fork { puts Digest::MD5.hexdigest("y"); exit! 3 }
Process.wait(pid)
puts $?.exitstatus, Thread.new { Digest::SHA1.hexdigest("z") }.value
END
