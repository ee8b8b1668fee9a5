package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc/peer"
)

// text is a codec of gRPC whose messages are strings.
type text struct{}

func (text) Marshal(value any) ([]byte, error) {
	message, ok := value.(*string)
	if !ok {
		return nil, fmt.Errorf("%T is no text", value)
	}
	return []byte(*message), nil
}

func (text) Unmarshal(data []byte, value any) error {
	message, ok := value.(*string)
	if !ok {
		return fmt.Errorf("%T is no text", value)
	}
	*message = string(data)
	return nil
}

// Name is what proxies see: application/grpc+proto.
func (text) Name() string { return "proto" }

func peerAddress(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
