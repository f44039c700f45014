// The official Go client, unmodified, as a program that the tests drive.
//
// Reports one JSON object per line on standard output; see tests/clients/README.md.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"time"

	mq "github.com/apache/rocketmq-clients/golang/v5"
	"github.com/apache/rocketmq-clients/golang/v5/credentials"
)

var started = time.Now()

func report(event string, fields map[string]interface{}) {
	if fields == nil {
		fields = map[string]interface{}{}
	}
	fields["event"] = event
	fields["at_ms"] = time.Since(started).Milliseconds()
	line, err := json.Marshal(fields)
	must(err)
	// One write each: several goroutines report.
	_, err = os.Stdout.Write(append(line, '\n'))
	must(err)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var (
	flags      = flag.NewFlagSet("client", flag.ExitOnError)
	endpoints  = flags.String("endpoints", "", "")
	topic      = flags.String("topic", "", "")
	group      = flags.String("group", "go", "")
	prefix     = flags.String("prefix", "go", "")
	tag        = flags.String("tag", "", "")
	filter     = flags.String("filter", "*", "")
	count      = flags.Int("count", math.MaxInt32, "")
	seconds    = flags.Float64("seconds", 3600, "")
	intervalMs = flags.Float64("interval-ms", 0, "")
	awaitS     = flags.Int("await-s", 10, "")
	invisibleS = flags.Int("invisible-s", 30, "")
	leaveFirst = flags.Int("leave-first", 0, "")
	// This client encrypts unless an environment variable says otherwise, and never verifies.
	_ = flags.Bool("tls", true, "")
)

func expired() bool { return time.Since(started).Seconds() > *seconds }

func configuration() *mq.Config {
	return &mq.Config{
		Endpoint:      *endpoints,
		ConsumerGroup: *group,
		Credentials:   &credentials.SessionCredentials{},
	}
}

func produce() {
	producer, err := mq.NewProducer(configuration(), mq.WithTopics(*topic))
	must(err)
	must(producer.Start())
	started = time.Now()
	report("ready", nil)
	for n := 0; n < *count && !expired(); n++ {
		body := fmt.Sprintf("%s-%d", *prefix, n)
		message := &mq.Message{Topic: *topic, Body: []byte(body)}
		message.SetKeys(body)
		if *tag != "" {
			message.SetTag(*tag)
		}
		receipts, err := producer.Send(context.Background(), message)
		if err != nil {
			report("failed", map[string]interface{}{"body": body, "error": err.Error()})
		} else {
			report("sent", map[string]interface{}{
				"body": body, "id": receipts[0].MessageID, "offset": receipts[0].Offset,
			})
		}
		time.Sleep(time.Duration(*intervalMs * float64(time.Millisecond)))
	}
	report("done", nil)
}

func simple() {
	consumer, err := mq.NewSimpleConsumer(configuration(),
		mq.WithAwaitDuration(time.Duration(*awaitS)*time.Second),
		mq.WithSubscriptionExpressions(map[string]*mq.FilterExpression{
			*topic: mq.NewFilterExpression(*filter),
		}),
	)
	must(err)
	must(consumer.Start())
	started = time.Now()
	report("ready", nil)
	deliveries, acked := 0, 0
	for acked < *count && !expired() {
		messages, err := consumer.Receive(context.Background(), 32, time.Duration(*invisibleS)*time.Second)
		if err != nil {
			// An empty poll is an error in this client.
			if status, ok := mq.AsErrRpcStatus(err); !ok || status.GetCode() != 40401 {
				report("receive_failed", map[string]interface{}{"error": err.Error()})
				time.Sleep(100 * time.Millisecond)
			}
			continue
		}
		for _, message := range messages {
			deliveries++
			report("received", map[string]interface{}{
				"body": string(message.GetBody()), "id": message.GetMessageId(),
				"tag": message.GetTag(), "attempt": message.GetDeliveryAttempt(),
			})
			if deliveries <= *leaveFirst {
				continue
			}
			if err := consumer.Ack(context.Background(), message); err != nil {
				report("ack_failed", map[string]interface{}{"id": message.GetMessageId(), "error": err.Error()})
			} else {
				acked++
				report("acked", map[string]interface{}{"id": message.GetMessageId()})
			}
		}
	}
	report("done", nil)
}

func main() {
	modes := map[string]func(){"produce": produce, "simple": simple, "serve": serve}
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "modes: produce, simple, serve")
		os.Exit(2)
	}
	must(flags.Parse(os.Args[2:]))
	modes[os.Args[1]]()
}
