// The peer in Go: net/http and franz-go, as a user of both would write it, with the arguments, the answers and
// the counts of the peers in Rust.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

const (
	contentBytes = 1_000_000
	// How long a request may wait for room in a full client.
	roomTime = 10 * time.Second
	// More than the delivery timeout.
	drainTime = 12 * time.Second
)

var (
	queued = []byte(`{"promise":"queued"}`)
	full   = []byte(`{"message":"no room for the record in time"}`)
	failed = []byte(`{"message":"Kafka did not report the record as written"}`)
)

type server struct {
	client *kgo.Client
	topic  string
	queued bool
	// A place for each record that the client may hold. The client's own limit would block without end: it
	// takes a context, but one that fails the records that are in a batch with the one it was given for.
	room chan struct{}

	answered  [600]atomic.Int64
	delivered atomic.Int64
	failed    atomic.Int64
	accepted  atomic.Int64
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		s.refuse(w, http.StatusMethodNotAllowed)
		return
	}
	value, err := read(w, r)
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		s.refuse(w, http.StatusRequestEntityTooLarge)
		return
	case err != nil:
		s.refuse(w, http.StatusBadRequest)
		return
	}
	if !s.enter() {
		s.answer(w, http.StatusServiceUnavailable, full)
		return
	}
	record := &kgo.Record{Topic: s.topic, Value: value}
	if s.queued {
		s.client.Produce(context.Background(), record, func(_ *kgo.Record, err error) { s.report(err) })
		s.answer(w, http.StatusAccepted, queued)
		return
	}
	reported := make(chan error, 1)
	s.client.Produce(context.Background(), record, func(_ *kgo.Record, err error) {
		s.report(err)
		reported <- err
	})
	if err := <-reported; err != nil {
		s.answer(w, http.StatusGatewayTimeout, failed)
		return
	}
	receipt := fmt.Appendf(nil, `{"topic":"%s","partition":%d,"offset":%d}`, s.topic, record.Partition, record.Offset)
	s.answer(w, http.StatusOK, receipt)
}

// The content, at once in a slice of its size where that is known; the client keeps it until it is delivered.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength < 0 {
		return io.ReadAll(http.MaxBytesReader(w, r.Body, contentBytes))
	}
	if r.ContentLength > contentBytes {
		return nil, &http.MaxBytesError{Limit: contentBytes}
	}
	value := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, value)
	return value, err
}

// Whether there was room in time.
func (s *server) enter() bool {
	select {
	case s.room <- struct{}{}:
		return true
	default:
	}
	timer := time.NewTimer(roomTime)
	defer timer.Stop()
	select {
	case s.room <- struct{}{}:
		return true
	case <-timer.C:
		return false
	}
}

func (s *server) report(err error) {
	if err == nil {
		s.delivered.Add(1)
	} else {
		s.failed.Add(1)
	}
	<-s.room
}

func (s *server) refuse(w http.ResponseWriter, status int) {
	s.answer(w, status, fmt.Appendf(nil, `{"message":"%d %s"}`, status, http.StatusText(status)))
}

func (s *server) answer(w http.ResponseWriter, status int, content []byte) {
	s.answered[status].Add(1)
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(content)))
	w.WriteHeader(status)
	// An error is the client's end of the connection.
	_, _ = w.Write(content)
}

func (s *server) counts() string {
	answered := map[string]int64{}
	for status := range s.answered {
		if count := s.answered[status].Load(); count > 0 {
			answered[strconv.Itoa(status)] = count
		}
	}
	line, err := json.Marshal(map[string]any{
		"answered":  answered,
		"delivered": s.delivered.Load(),
		"failed":    s.failed.Load(),
		"accepted":  s.accepted.Load(),
	})
	if err != nil {
		panic(err)
	}
	return string(line)
}

func main() {
	host := flag.String("host", "127.0.0.1", "")
	port := flag.Int("port", 0, "")
	brokers := flag.String("brokers", "", "")
	topic := flag.String("topic", "", "")
	promise := flag.String("promise", "", "queued or delivered")
	profile := flag.String("profile", "default", "default or tuned")
	threads := flag.Int("threads", 1, "")
	linger := flag.Float64("linger-ms", -1, "in place of the profile's")
	batch := flag.Int("batch-bytes", -1, "in place of the profile's")
	flag.Parse()
	if *port == 0 || *brokers == "" || *topic == "" || *threads < 1 {
		wrong("--port, --brokers and --topic are needed, and --threads of at least 1")
	}
	if *promise != "queued" && *promise != "delivered" {
		wrong("--promise: queued or delivered")
	}
	if *profile != "default" && *profile != "tuned" {
		wrong("--profile: default or tuned")
	}
	runtime.GOMAXPROCS(*threads)

	// librdkafka's mock cluster knows ApiVersions up to 2, and its answer to a later one is no answer to it.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.ApiVersions.Int16(), 2)
	// acks=all and idempotence are franz-go's defaults; what is compressed by default is not, for librdkafka
	// does not compress either.
	options := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(*brokers, ",")...),
		kgo.MaxVersions(versions),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordDeliveryTimeout(8 * time.Second),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
	}
	places := 50_000 // the client's default
	if *profile == "tuned" {
		places = 1_000_000
		options = append(options, kgo.ProducerLinger(time.Millisecond))
	}
	if *linger >= 0 {
		options = append(options, kgo.ProducerLinger(time.Duration(*linger*float64(time.Millisecond))))
	}
	if *batch >= 0 {
		options = append(options, kgo.ProducerBatchMaxBytes(int32(*batch)))
	}
	// A place is free a moment before the client has counted its record out.
	options = append(options, kgo.MaxBufferedRecords(2*places))
	client, err := kgo.NewClient(options...)
	if err != nil {
		fail(err)
	}

	s := &server{client: client, topic: *topic, queued: *promise == "queued", room: make(chan struct{}, places)}
	listener, err := net.Listen("tcp", net.JoinHostPort(*host, strconv.Itoa(*port)))
	if err != nil {
		fail(err)
	}
	web := &http.Server{
		Handler: s,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.accepted.Add(1)
			}
		},
	}
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		if err := web.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fail(err)
		}
	}()
	<-stopped.Done()

	drained, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	// What is late for either is in the counts.
	_ = web.Shutdown(drained)
	_ = client.Flush(drained)
	fmt.Println(s.counts())
}

func wrong(text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(2)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
