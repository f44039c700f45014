import com.google.gson.Gson;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.BufferedReader;
import java.io.Closeable;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BiConsumer;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.rocketmq.client.apis.ClientConfiguration;
import org.apache.rocketmq.client.apis.ClientServiceProvider;
import org.apache.rocketmq.client.apis.StaticSessionCredentialsProvider;
import org.apache.rocketmq.client.apis.consumer.ConsumeResult;
import org.apache.rocketmq.client.apis.consumer.FilterExpression;
import org.apache.rocketmq.client.apis.consumer.FilterExpressionType;
import org.apache.rocketmq.client.apis.consumer.PushConsumer;
import org.apache.rocketmq.client.apis.consumer.SimpleConsumer;
import org.apache.rocketmq.client.apis.message.MessageView;
import org.apache.rocketmq.client.apis.producer.Producer;
import org.apache.rocketmq.client.apis.producer.Transaction;
import org.apache.rocketmq.client.apis.producer.TransactionResolution;

/**
 * The mode {@code serve}: does what each line on standard input says, through the official client.
 *
 * <p>The commands and the answers are described in tests/clients/README.md.
 */
final class Serve {
    /** Larger bodies are told by their size. */
    private static final int TOLD = 4096;
    /** How this library tells the server's code. */
    private static final Pattern CODE = Pattern.compile("response-code=(\\d+)");
    private static final ClientServiceProvider PROVIDER = ClientServiceProvider.loadService();

    private final ClientConfiguration configuration;
    private final BiConsumer<String, JsonObject> report;
    private final Map<String, Closeable> clients = new ConcurrentHashMap<>();
    private final Map<Integer, MessageView> held = new ConcurrentHashMap<>();
    private final AtomicInteger tokens = new AtomicInteger();

    Serve(ClientConfiguration configuration, BiConsumer<String, JsonObject> report) {
        this.configuration = configuration;
        this.report = report;
    }

    private static String text(JsonObject command, String name) {
        JsonElement value = command.get(name);
        return value == null || value.isJsonNull() ? null : value.getAsString();
    }

    private static int number(JsonObject command, String name, int otherwise) {
        return command.has(name) ? command.get(name).getAsInt() : otherwise;
    }

    private static JsonObject view(MessageView message) {
        ByteBuffer body = message.getBody();
        JsonObject seen = new JsonObject();
        seen.addProperty("topic", message.getTopic());
        seen.addProperty("id", message.getMessageId().toString());
        seen.addProperty("size", body.remaining());
        message.getTag().ifPresent(tag -> seen.addProperty("tag", tag));
        message.getMessageGroup().ifPresent(group -> seen.addProperty("message_group", group));
        message.getDeliveryTimestamp().ifPresent(at -> seen.addProperty("deliver_at_ms", at));
        seen.addProperty("attempt", message.getDeliveryAttempt());
        seen.add("keys", new Gson().toJsonTree(new TreeSet<>(message.getKeys())));
        seen.add("properties", new Gson().toJsonTree(message.getProperties()));
        if (body.remaining() <= TOLD) {
            seen.addProperty("body", StandardCharsets.UTF_8.decode(body.duplicate()).toString());
        }
        return seen;
    }

    private JsonObject event(JsonObject command, MessageView message) {
        JsonObject event = new JsonObject();
        event.addProperty("client", text(command, "client"));
        event.add("message", view(message));
        return event;
    }

    private ClientConfiguration configuration(JsonObject command) {
        if (!command.has("access_key")) {
            return configuration;
        }
        var keys = new StaticSessionCredentialsProvider(
            text(command, "access_key"), text(command, "secret_key"));
        return ClientConfiguration.newBuilder().setEndpoints(configuration.getEndpoints())
            .setCredentialProvider(keys).build();
    }

    private static boolean given(JsonObject command, String part) {
        return !part.equals(text(command, "without"));
    }

    private static boolean asynchronous(JsonObject command) {
        return command.has("asynchronous") && command.get("asynchronous").getAsBoolean();
    }

    private void producer(JsonObject command) throws Exception {
        var builder = PROVIDER.newProducerBuilder();
        if (given(command, "configuration")) {
            builder.setClientConfiguration(configuration(command));
        }
        if (command.has("topics")) {
            builder.setTopics(new Gson().fromJson(command.get("topics"), String[].class));
        }
        if (command.has("attempts")) {
            builder.setMaxAttempts(number(command, "attempts", 0));
        }
        String verdict = text(command, "verdict");
        if (verdict != null) {
            builder.setTransactionChecker(message -> {
                report.accept("asked", event(command, message));
                return switch (verdict) {
                    case "commit" -> TransactionResolution.COMMIT;
                    case "rollback" -> TransactionResolution.ROLLBACK;
                    default -> TransactionResolution.UNKNOWN;
                };
            });
        }
        clients.put(text(command, "client"), builder.build());
    }

    private static Map<String, FilterExpression> subscription(JsonObject command) {
        boolean sql = command.has("sql") && command.get("sql").getAsBoolean();
        String filter = command.has("filter") ? text(command, "filter") : "*";
        var kind = sql ? FilterExpressionType.SQL92 : FilterExpressionType.TAG;
        return Map.of(text(command, "topic"), new FilterExpression(filter, kind));
    }

    private void simple(JsonObject command) throws Exception {
        var builder = PROVIDER.newSimpleConsumerBuilder()
            .setAwaitDuration(Duration.ofMillis(number(command, "await_ms", 0)));
        if (given(command, "configuration")) {
            builder.setClientConfiguration(configuration);
        }
        if (given(command, "group")) {
            builder.setConsumerGroup(text(command, "group"));
        }
        if (given(command, "subscription")) {
            builder.setSubscriptionExpressions(subscription(command));
        }
        clients.put(text(command, "client"), builder.build());
    }

    private void push(JsonObject command) throws Exception {
        String failBody = text(command, "fail_body");
        Map<String, Integer> seen = new ConcurrentHashMap<>();
        var builder = PROVIDER.newPushConsumerBuilder();
        if (given(command, "configuration")) {
            builder.setClientConfiguration(configuration);
        }
        if (given(command, "group")) {
            builder.setConsumerGroup(text(command, "group"));
        }
        if (given(command, "subscription")) {
            builder.setSubscriptionExpressions(subscription(command));
        }
        if (given(command, "listener")) {
            builder.setMessageListener(message -> {
                JsonObject event = event(command, message);
                boolean failing = failBody == null
                    || failBody.equals(text(event.getAsJsonObject("message"), "body"));
                int times = seen.merge(message.getMessageId().toString(), 1, Integer::sum);
                boolean fails = failing && times <= number(command, "fail_attempts", 0);
                report.accept("received", event);
                return fails ? ConsumeResult.FAILURE : ConsumeResult.SUCCESS;
            });
        }
        clients.put(text(command, "client"), builder.build());
    }

    private static byte[] body(JsonObject command) {
        if (!command.has("body_size")) {
            return command.has("body") ? text(command, "body").getBytes(StandardCharsets.UTF_8) : new byte[0];
        }
        byte[] body = new byte[number(command, "body_size", 0)];
        Arrays.fill(body, (byte) 'x');
        return body;
    }

    private void send(JsonObject command, JsonObject answer) throws Exception {
        if (command.has("priority")) {
            throw new UnsupportedOperationException("this library has no priorities");
        }
        var message = PROVIDER.newMessageBuilder().setTopic(text(command, "topic")).setBody(body(command));
        if (command.has("tag")) {
            message.setTag(text(command, "tag"));
        }
        if (command.has("keys")) {
            message.setKeys(new Gson().fromJson(command.get("keys"), String[].class));
        }
        if (command.has("properties")) {
            command.getAsJsonObject("properties").entrySet()
                .forEach(one -> message.addProperty(one.getKey(), one.getValue().getAsString()));
        }
        if (command.has("message_group")) {
            message.setMessageGroup(text(command, "message_group"));
        }
        if (command.has("deliver_at_ms")) {
            message.setDeliveryTimestamp(command.get("deliver_at_ms").getAsLong());
        }
        Producer producer = (Producer) clients.get(text(command, "client"));
        String ending = text(command, "transaction");
        if (ending == null) {
            var receipt = asynchronous(command)
                ? producer.sendAsync(message.build()).get() : producer.send(message.build());
            answer.addProperty("id", receipt.getMessageId().toString());
            String handle = receipt.getRecallHandle();
            if (handle != null && !handle.isEmpty()) {
                answer.addProperty("recall_handle", handle);
            }
            return;
        }
        Transaction transaction = producer.beginTransaction();
        var receipt = producer.send(message.build(), transaction);
        answer.addProperty("id", receipt.getMessageId().toString());
        switch (ending) {
            case "commit" -> transaction.commit();
            case "rollback" -> transaction.rollback();
            default -> { }
        }
    }

    private void recall(JsonObject command, JsonObject answer) throws Exception {
        Producer producer = (Producer) clients.get(text(command, "client"));
        var receipt = producer.recallMessage(text(command, "topic"), text(command, "recall_handle"));
        answer.addProperty("id", receipt.getMessageId().toString());
    }

    private SimpleConsumer consumer(JsonObject command) {
        return (SimpleConsumer) clients.get(text(command, "client"));
    }

    private static Duration invisible(JsonObject command) {
        return Duration.ofMillis(number(command, "invisible_ms", 0));
    }

    private void receive(JsonObject command, JsonObject answer) throws Exception {
        JsonArray messages = new JsonArray();
        int max = number(command, "max", 32);
        var received = asynchronous(command)
            ? consumer(command).receiveAsync(max, invisible(command)).get()
            : consumer(command).receive(max, invisible(command));
        for (MessageView message : received) {
            int token = tokens.getAndIncrement();
            held.put(token, message);
            JsonObject seen = view(message);
            seen.addProperty("token", token);
            messages.add(seen);
        }
        answer.add("messages", messages);
    }

    private MessageView held(JsonObject command) {
        return held.get(number(command, "token", -1));
    }

    private void perform(JsonObject command, JsonObject answer) throws Exception {
        switch (text(command, "do")) {
            case "producer" -> producer(command);
            case "simple" -> simple(command);
            case "push" -> push(command);
            case "send" -> send(command, answer);
            case "recall" -> recall(command, answer);
            case "receive" -> receive(command, answer);
            case "ack" -> consumer(command).ack(held(command));
            case "change" -> consumer(command).changeInvisibleDuration(held(command), invisible(command));
            case "close" -> clients.remove(text(command, "client")).close();
            default -> throw new IllegalArgumentException("unknown command " + command);
        }
    }

    private void answer(JsonObject command) {
        JsonObject answer = new JsonObject();
        answer.add("n", command.get("n"));
        try {
            perform(command, answer);
        } catch (UnsupportedOperationException error) {
            answer.addProperty("error", error.getMessage());
            answer.addProperty("impossible", true);
        } catch (Throwable error) {
            // Starting a client wraps what went wrong.
            Throwable cause = error;
            while (cause.getCause() != null && !CODE.matcher(String.valueOf(cause)).find()) {
                cause = cause.getCause();
            }
            answer.addProperty("error", cause.toString());
            Matcher code = CODE.matcher(cause.toString());
            if (code.find()) {
                answer.addProperty("code", Integer.parseInt(code.group(1)));
            }
        }
        report.accept("answer", answer);
    }

    void serve() throws Exception {
        report.accept("ready", new JsonObject());
        ExecutorService pool = Executors.newCachedThreadPool();
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonObject command = JsonParser.parseString(line).getAsJsonObject();
            pool.execute(() -> answer(command));
        }
    }
}
