// The mode serve: does what each line on standard input says, through the official client.
//
// The commands and the answers are described in tests/clients/README.md.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"
	"sync"
	"time"

	mq "github.com/apache/rocketmq-clients/golang/v5"
	"github.com/apache/rocketmq-clients/golang/v5/credentials"
)

const (
	// Larger bodies are told by their size.
	told = 4096
	// Larger than any command.
	longestLine = 1 << 20
)

var errImpossible = errors.New("this library cannot do that")

type command struct {
	N            int               `json:"n"`
	Do           string            `json:"do"`
	Client       string            `json:"client"`
	Topics       []string          `json:"topics"`
	Attempts     *int32            `json:"attempts"`
	Verdict      string            `json:"verdict"`
	Group        string            `json:"group"`
	Topic        string            `json:"topic"`
	Filter       *string           `json:"filter"`
	SQL          bool              `json:"sql"`
	AwaitMs      int64             `json:"await_ms"`
	Body         string            `json:"body"`
	BodySize     *int              `json:"body_size"`
	Tag          *string           `json:"tag"`
	Keys         []string          `json:"keys"`
	Properties   map[string]string `json:"properties"`
	MessageGroup *string           `json:"message_group"`
	DeliverAtMs  *int64            `json:"deliver_at_ms"`
	Priority     *int              `json:"priority"`
	Transaction  string            `json:"transaction"`
	Max          int32             `json:"max"`
	InvisibleMs  int64             `json:"invisible_ms"`
	Token        int               `json:"token"`
	AccessKey    string            `json:"access_key"`
	SecretKey    string            `json:"secret_key"`
	Asynchronous bool              `json:"asynchronous"`
	Without      string            `json:"without"`
}

type fields map[string]interface{}

func view(message *mq.MessageView) fields {
	keys := append([]string{}, message.GetKeys()...)
	sort.Strings(keys)
	properties := message.GetProperties()
	if properties == nil {
		properties = map[string]string{}
	}
	seen := fields{
		"topic": message.GetTopic(), "id": message.GetMessageId(), "size": len(message.GetBody()),
		"tag": message.GetTag(), "keys": keys, "properties": properties,
		"message_group": message.GetMessageGroup(), "attempt": message.GetDeliveryAttempt(),
	}
	if at := message.GetDeliveryTimestamp(); at != nil {
		seen["deliver_at_ms"] = at.UnixMilli()
	}
	if len(message.GetBody()) <= told {
		seen["body"] = string(message.GetBody())
	}
	return seen
}

type server struct {
	lock      sync.Mutex
	producers map[string]mq.Producer
	consumers map[string]mq.SimpleConsumer
	held      []*mq.MessageView
}

func (s *server) config(c *command) *mq.Config {
	group := c.Group
	switch c.Without {
	case "configuration":
		return nil
	case "group":
		group = ""
	}
	return &mq.Config{
		Endpoint:      *endpoints,
		ConsumerGroup: group,
		Credentials: &credentials.SessionCredentials{
			AccessKey: c.AccessKey, AccessSecret: c.SecretKey,
		},
	}
}

func (s *server) producer(c *command) (fields, error) {
	options := []mq.ProducerOption{mq.WithTopics(c.Topics...)}
	if c.Attempts != nil {
		options = append(options, mq.WithMaxAttempts(*c.Attempts))
	}
	if c.Verdict != "" {
		verdicts := map[string]mq.TransactionResolution{
			"commit": mq.COMMIT, "rollback": mq.ROLLBACK, "unknown": mq.UNKNOWN,
		}
		check := func(message *mq.MessageView) mq.TransactionResolution {
			report("asked", fields{"client": c.Client, "message": view(message)})
			return verdicts[c.Verdict]
		}
		options = append(options, mq.WithTransactionChecker(&mq.TransactionChecker{Check: check}))
	}
	producer, err := mq.NewProducer(s.config(c), options...)
	if err != nil {
		return nil, err
	}
	if err := producer.Start(); err != nil {
		return nil, err
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.producers[c.Client] = producer
	return fields{}, nil
}

func (s *server) simple(c *command) (fields, error) {
	expression, kind := "*", mq.TAG
	if c.Filter != nil {
		expression = *c.Filter
	}
	if c.SQL {
		kind = mq.SQL92
	}
	options := []mq.SimpleConsumerOption{
		mq.WithAwaitDuration(time.Duration(c.AwaitMs) * time.Millisecond),
	}
	if c.Without != "subscription" {
		options = append(options, mq.WithSubscriptionExpressions(map[string]*mq.FilterExpression{
			c.Topic: mq.NewFilterExpressionWithType(expression, kind),
		}))
	}
	consumer, err := mq.NewSimpleConsumer(s.config(c), options...)
	if err != nil {
		return nil, err
	}
	if err := consumer.Start(); err != nil {
		return nil, err
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	s.consumers[c.Client] = consumer
	return fields{}, nil
}

func (s *server) producerOf(c *command) mq.Producer {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.producers[c.Client]
}

func (s *server) consumerOf(c *command) mq.SimpleConsumer {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.consumers[c.Client]
}

func (s *server) send(c *command) (fields, error) {
	if c.Priority != nil {
		return nil, errImpossible
	}
	message := &mq.Message{Topic: c.Topic, Body: []byte(c.Body)}
	if c.BodySize != nil {
		message.Body = bytes.Repeat([]byte("x"), *c.BodySize)
	}
	if c.Tag != nil {
		message.SetTag(*c.Tag)
	}
	if c.Keys != nil {
		message.SetKeys(c.Keys...)
	}
	for key, value := range c.Properties {
		message.AddProperty(key, value)
	}
	if c.MessageGroup != nil {
		message.SetMessageGroup(*c.MessageGroup)
	}
	if c.DeliverAtMs != nil {
		message.SetDelayTimestamp(time.UnixMilli(*c.DeliverAtMs))
	}
	producer := s.producerOf(c)
	if c.Transaction == "" {
		receipts, err := sent(producer, message, c.Asynchronous)
		if err != nil {
			return nil, err
		}
		return fields{"id": receipts[0].MessageID}, nil
	}
	transaction := producer.BeginTransaction()
	receipts, err := producer.SendWithTransaction(context.Background(), message, transaction)
	if err != nil {
		return nil, err
	}
	switch c.Transaction {
	case "commit":
		err = transaction.Commit()
	case "rollback":
		err = transaction.RollBack()
	}
	return fields{"id": receipts[0].MessageID}, err
}

func sent(producer mq.Producer, message *mq.Message, asynchronous bool) ([]*mq.SendReceipt, error) {
	if !asynchronous {
		return producer.Send(context.Background(), message)
	}
	type outcome struct {
		receipts []*mq.SendReceipt
		err      error
	}
	done := make(chan outcome, 1)
	producer.SendAsync(context.Background(), message,
		func(_ context.Context, receipts []*mq.SendReceipt, err error) {
			done <- outcome{receipts, err}
		})
	came := <-done
	return came.receipts, came.err
}

func (s *server) receive(c *command) (fields, error) {
	invisible := time.Duration(c.InvisibleMs) * time.Millisecond
	messages, err := s.consumerOf(c).Receive(context.Background(), c.Max, invisible)
	// An empty poll is an error in this client.
	if status, ok := mq.AsErrRpcStatus(err); ok && status.GetCode() == 40401 {
		messages, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.lock.Lock()
	defer s.lock.Unlock()
	seen := []fields{}
	for _, message := range messages {
		one := view(message)
		one["token"] = len(s.held)
		s.held = append(s.held, message)
		seen = append(seen, one)
	}
	return fields{"messages": seen}, nil
}

func (s *server) heldBy(c *command) *mq.MessageView {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.held[c.Token]
}

func (s *server) answer(c *command) (fields, error) {
	switch c.Do {
	case "producer":
		return s.producer(c)
	case "simple":
		return s.simple(c)
	case "send":
		return s.send(c)
	case "receive":
		return s.receive(c)
	case "ack":
		return fields{}, s.consumerOf(c).Ack(context.Background(), s.heldBy(c))
	case "change":
		invisible := time.Duration(c.InvisibleMs) * time.Millisecond
		return fields{}, s.consumerOf(c).ChangeInvisibleDuration(s.heldBy(c), invisible)
	case "close":
		if consumer := s.consumerOf(c); consumer != nil {
			return fields{}, consumer.GracefulStop()
		}
		return fields{}, s.producerOf(c).GracefulStop()
	case "push", "recall":
		return nil, errImpossible
	default:
		return nil, fmt.Errorf("unknown command %s", c.Do)
	}
}

// The library panics where it misses what it needs.
func (s *server) survived(c *command) (answer fields, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("it panicked: %v", panicked)
		}
	}()
	return s.answer(c)
}

func serve() {
	s := &server{producers: map[string]mq.Producer{}, consumers: map[string]mq.SimpleConsumer{}}
	report("ready", nil)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 0, longestLine), longestLine)
	for lines.Scan() {
		c := &command{}
		must(json.Unmarshal(lines.Bytes(), c))
		go func() {
			answer, err := s.survived(c)
			if err != nil {
				answer = fields{"error": err.Error()}
				if errors.Is(err, errImpossible) {
					answer["impossible"] = true
				}
				if status, ok := mq.AsErrRpcStatus(err); ok {
					answer["code"] = status.GetCode()
				}
			}
			answer["n"] = c.N
			report("answer", answer)
		}()
	}
	must(lines.Err())
	report("done", nil)
}
