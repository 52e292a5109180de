// How Go's net/http reads raw streams.  In: for each its length (4 bytes, big endian) and its bytes.  Out: for each
// a line of JSON, the requests that were read whole as [method, target, content in base64], and why no more were.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"regexp"
	"sync"
	"time"
)

type outcome struct {
	Requests [][3]string `json:"requests"`
	Refused  *string     `json:"refused"`
}

// conn is a connection whose peer has sent everything already, and reads everything.
type conn struct {
	in     *bytes.Reader
	lock   sync.Mutex
	out    bytes.Buffer
	once   sync.Once
	closed chan struct{}
	outcome
}

type address struct{}

func (address) Network() string { return "memory" }
func (address) String() string  { return "memory" }

func (c *conn) Read(to []byte) (int, error) { return c.in.Read(to) }
func (c *conn) Write(data []byte) (int, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	return c.out.Write(data)
}
func (c *conn) Close() error                     { c.once.Do(func() { close(c.closed) }); return nil }
func (c *conn) LocalAddr() net.Addr              { return address{} }
func (c *conn) RemoteAddr() net.Addr             { return address{} }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

type listener chan *conn

func (l listener) Accept() (net.Conn, error) {
	next, open := <-l
	if !open {
		return nil, net.ErrClosed
	}
	return next, nil
}
func (l listener) Close() error   { return nil }
func (l listener) Addr() net.Addr { return address{} }

type key struct{}

func answer(response http.ResponseWriter, request *http.Request) {
	content, err := io.ReadAll(request.Body)
	own := request.Context().Value(key{}).(*conn)
	if err != nil {
		text := "content: " + err.Error()
		own.Refused = &text
		return
	}
	encoded := base64.StdEncoding.EncodeToString(content)
	own.Requests = append(own.Requests, [3]string{request.Method, request.RequestURI, encoded})
	response.WriteHeader(204)
}

// An answer that the handler did not give: its status, and the words behind its head.
var refusal = regexp.MustCompile(`(?s)HTTP/1\.[01] ([45]\d\d [^\r]*)\r\n.*?\r\n\r\n(.*)$`)

func (c *conn) finish() {
	if found := refusal.FindSubmatch(c.out.Bytes()); found != nil && c.Refused == nil {
		text := string(found[2])
		if text == "" {
			text = string(found[1])
		}
		c.Refused = &text
	}
	if c.Requests == nil {
		c.Requests = [][3]string{}
	}
}

func main() {
	connections := make(listener)
	server := &http.Server{
		Handler:  http.HandlerFunc(answer),
		ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, key{}, c)
		},
	}
	go server.Serve(connections)
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriterSize(os.Stdout, 1<<20)
	defer out.Flush()
	encoder := json.NewEncoder(out)
	for {
		var size uint32
		if binary.Read(in, binary.BigEndian, &size) != nil {
			return
		}
		stream := make([]byte, size)
		if _, err := io.ReadFull(in, stream); err != nil {
			log.Fatal(err)
		}
		next := &conn{in: bytes.NewReader(stream), closed: make(chan struct{})}
		connections <- next
		<-next.closed
		next.finish()
		if err := encoder.Encode(next.outcome); err != nil {
			log.Fatal(err)
		}
	}
}
