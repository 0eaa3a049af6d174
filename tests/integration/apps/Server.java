// SPDX-License-Identifier: Apache-2.0
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.ServerSocket;
import java.net.Socket;
import java.util.ArrayList;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

// The line server of apps.py in Java: threads of the collector and the compiler, a safepoint page, timers, garbage.
public class Server {
  public static void main(String[] arguments) throws Exception {
    AtomicLong count = new AtomicLong(), ticks = new AtomicLong();
    Executors.newScheduledThreadPool(2).scheduleAtFixedRate(() -> {
      ArrayList<byte[]> garbage = new ArrayList<>();
      for (int i = 0; i < 100; i++) garbage.add(new byte[10000]);
      ticks.incrementAndGet();
    }, 10, 10, TimeUnit.MILLISECONDS);
    ServerSocket server = new ServerSocket(Integer.parseInt(arguments[0]));
    while (true) {
      Socket socket = server.accept();
      new Thread(() -> {
        try {
          BufferedReader lines = new BufferedReader(new InputStreamReader(socket.getInputStream()));
          for (String line; (line = lines.readLine()) != null;)
            if (line.equals("inc")) socket.getOutputStream().write((count.incrementAndGet() + " " + ticks.get() + "\n").getBytes());
        } catch (Exception gone) {
          // The client's affair.
        }
      }).start();
    }
  }
}
