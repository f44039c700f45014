import com.google.gson.JsonObject;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;

/**
 * The official Java client, unmodified, as a program that the tests drive.
 *
 * <p>Reports one JSON object per line on standard output; see tests/clients/README.md.
 */
public final class Client {
    private static long started = System.nanoTime();
    private static final ClientServiceProvider PROVIDER = ClientServiceProvider.loadService();
    private static final Map<String, String> OPTIONS = new HashMap<>();

    /** Name and value by turns; a null value is left out. */
    private static synchronized void report(String event, Object... fields) {
        StringBuilder line = new StringBuilder("{\"event\":\"" + event + "\"");
        for (int i = 0; i < fields.length; i += 2) {
            if (fields[i + 1] == null) {
                continue;
            }
            line.append(",\"").append(fields[i]).append("\":");
            line.append(fields[i + 1] instanceof Number ? fields[i + 1] : quoted(fields[i + 1].toString()));
        }
        System.out.println(line + ",\"at_ms\":" + (System.nanoTime() - started) / 1_000_000 + "}");
    }

    private static synchronized void print(String event, JsonObject fields) {
        fields.addProperty("event", event);
        fields.addProperty("at_ms", (System.nanoTime() - started) / 1_000_000);
        System.out.println(fields);
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            quoted.append(c < ' ' ? " " : c == '"' || c == '\\' ? "\\" + c : String.valueOf(c));
        }
        return quoted.append('"').toString();
    }

    private static String option(String name, String otherwise) {
        return OPTIONS.getOrDefault(name, otherwise);
    }

    private static int number(String name, int otherwise) {
        return Integer.parseInt(option(name, String.valueOf(otherwise)));
    }

    private static boolean expired() {
        return System.nanoTime() - started > number("seconds", 3600) * 1_000_000_000L;
    }

    /** Encrypts without verification, which is this client's default. */
    private static ClientConfiguration configuration() {
        return ClientConfiguration.newBuilder().setEndpoints(option("endpoints", "")).build();
    }

    private static Map<String, FilterExpression> subscription() {
        return Map.of(option("topic", ""), new FilterExpression(option("filter", "*")));
    }

    private static void ready() {
        started = System.nanoTime();
        report("ready");
    }

    private static void produce() throws Exception {
        String topic = option("topic", "");
        Producer producer = PROVIDER.newProducerBuilder()
            .setClientConfiguration(configuration()).setTopics(topic).build();
        ready();
        for (int n = 0; n < number("count", Integer.MAX_VALUE) && !expired(); n++) {
            String body = option("prefix", "java") + "-" + n;
            var message = PROVIDER.newMessageBuilder().setTopic(topic).setKeys(body)
                .setBody(body.getBytes(StandardCharsets.UTF_8));
            if (OPTIONS.containsKey("tag")) {
                message.setTag(OPTIONS.get("tag"));
            }
            try {
                report("sent", "body", body, "id", producer.send(message.build()).getMessageId());
            } catch (Exception error) {
                report("failed", "body", body, "error", error);
            }
            Thread.sleep(number("interval-ms", 0));
        }
    }

    private static void received(MessageView message) {
        report("received", "body", StandardCharsets.UTF_8.decode(message.getBody()),
            "id", message.getMessageId(), "tag", message.getTag().orElse(null),
            "attempt", message.getDeliveryAttempt());
    }

    private static void simple() throws Exception {
        SimpleConsumer consumer = PROVIDER.newSimpleConsumerBuilder()
            .setClientConfiguration(configuration()).setConsumerGroup(option("group", "java"))
            .setAwaitDuration(Duration.ofSeconds(number("await-s", 10)))
            .setSubscriptionExpressions(subscription()).build();
        ready();
        int deliveries = 0;
        int acked = 0;
        while (acked < number("count", Integer.MAX_VALUE) && !expired()) {
            try {
                for (var message : consumer.receive(32, Duration.ofSeconds(number("invisible-s", 30)))) {
                    received(message);
                    if (++deliveries <= number("leave-first", 0)) {
                        continue;
                    }
                    consumer.ack(message);
                    acked++;
                    report("acked", "id", message.getMessageId());
                }
            } catch (Exception error) {
                report("receive_failed", "error", error);
                Thread.sleep(100);
            }
        }
    }

    private static void push() throws Exception {
        AtomicInteger deliveries = new AtomicInteger();
        AtomicInteger consumed = new AtomicInteger();
        PROVIDER.newPushConsumerBuilder()
            .setClientConfiguration(configuration()).setConsumerGroup(option("group", "java"))
            .setSubscriptionExpressions(subscription())
            .setMessageListener(message -> {
                received(message);
                if (deliveries.incrementAndGet() <= number("fail-first", 0)) {
                    return ConsumeResult.FAILURE;
                }
                consumed.incrementAndGet();
                return ConsumeResult.SUCCESS;
            }).build();
        ready();
        while (consumed.get() < number("count", Integer.MAX_VALUE) && !expired()) {
            Thread.sleep(50);
        }
        // The acks of the last deliveries are under way.
        Thread.sleep(1000);
    }

    public static void main(String[] arguments) throws Exception {
        System.setOut(new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8));
        for (int i = 1; i + 1 < arguments.length; i += 2) {
            OPTIONS.put(arguments[i].substring(2), arguments[i + 1]);
        }
        switch (arguments.length == 0 ? "" : arguments[0]) {
            case "produce" -> produce();
            case "simple" -> simple();
            case "push" -> push();
            case "serve" -> new Serve(configuration(), Client::print).serve();
            default -> throw new IllegalArgumentException("modes: produce, simple, push, serve");
        }
        report("done");
        // The client's threads keep the process alive; a program that is done ends.
        System.exit(0);
    }
}
