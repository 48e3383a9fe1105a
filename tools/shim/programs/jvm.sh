# Java: the JVM itself, its libraries (AWT, fonts, sockets, zip).
# Packages: openjdk-17-jdk fontconfig
set -eu
if [ "$1" = build ]; then
    cat >Main.java <<'END'
import java.awt.*; import java.awt.image.*; import java.io.*; import java.net.*; import java.nio.file.*; import java.util.zip.*;
public class Main {
    public static void main(String[] arguments) throws Exception {
        BufferedImage image = new BufferedImage(100, 40, BufferedImage.TYPE_INT_RGB);
        Graphics2D graphics = image.createGraphics();
        graphics.setRenderingHint(RenderingHints.KEY_ANTIALIASING, RenderingHints.VALUE_ANTIALIAS_ON);
        graphics.fillOval(5, 5, 30, 30);
        graphics.setFont(new Font("SansSerif", Font.PLAIN, 20));
        graphics.drawString("memory", 30, 30);
        int hash = 0;
        for (int x = 0; x < 100; x++) for (int y = 0; y < 40; y++) hash = hash * 31 + image.getRGB(x, y);
        System.out.println("image " + hash + " " + (GraphicsEnvironment.getLocalGraphicsEnvironment().getAvailableFontFamilyNames().length > 0));
        ByteArrayOutputStream png = new ByteArrayOutputStream();
        System.out.println(javax.imageio.ImageIO.write(image, "png", png) + " " + javax.imageio.ImageIO.write(image, "jpg", new ByteArrayOutputStream()));
        ByteArrayOutputStream zipped = new ByteArrayOutputStream();
        try (GZIPOutputStream zip = new GZIPOutputStream(zipped)) { zip.write(new byte[10000]); }
        System.out.println(new GZIPInputStream(new ByteArrayInputStream(zipped.toByteArray())).readAllBytes().length);
        try (ServerSocket server = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            Thread client = new Thread(() -> {
                try (Socket socket = new Socket(server.getInetAddress(), server.getLocalPort())) { socket.getOutputStream().write("hello".getBytes()); }
                catch (IOException error) { System.out.println(error); }
            });
            client.start();
            System.out.println(new String(server.accept().getInputStream().readAllBytes()));
            client.join();
        }
        Files.writeString(Path.of("x.txt"), "x");
        System.out.println(Files.size(Path.of("x.txt")) + " " + java.security.MessageDigest.getInstance("SHA-256").digest().length);
        long sum = 0;
        for (int i = 0; i < 5_000_000; i++) sum += i % 7;
        System.gc();
        try { Object none = null; none.toString(); } catch (NullPointerException error) { System.out.println("null " + sum); }
        System.out.println(new ProcessBuilder("echo", "child").start().inputReader().readLine());
    }
}
END
    javac Main.java
    exit 0
fi
java -Xmx256m -Djava.awt.headless=true Main
