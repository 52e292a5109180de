import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.http.HttpMessageFactory;
import io.cloudevents.jackson.JsonFormat;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** URL COUNT: so many events, by turns binary and structured; the JDK's client offers h2c with its first request. */
public class Send {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        for (int n = 0; n < Integer.parseInt(arguments[1]); n++) {
            CloudEvent event = CloudEventBuilder.v1()
                    .withId(Integer.toString(n)).withSource(URI.create("/java")).withType("test")
                    .withData("application/json", ("{\"n\":" + n + "}").getBytes()).build();
            HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(arguments[0]));
            var writer = HttpMessageFactory.createWriter(
                    (name, value) -> {
                        if (!name.equalsIgnoreCase("content-length")) request.setHeader(name, value);
                    },
                    body -> request.POST(HttpRequest.BodyPublishers.ofByteArray(body)));
            if (n % 2 == 0) {
                writer.writeBinary(event);
            } else {
                writer.writeStructured(event, JsonFormat.CONTENT_TYPE);
            }
            HttpResponse<String> answer = client.send(request.build(), HttpResponse.BodyHandlers.ofString());
            if (answer.statusCode() != 200 || answer.version() != HttpClient.Version.HTTP_1_1) {
                throw new IllegalStateException(answer.statusCode() + " " + answer.version() + " " + answer.body());
            }
        }
    }
}
