// Package interop holds ontagent to other people's programs, set up as
// docs/brokers says: the rights of every role at mosquitto, which are part of
// the tests everywhere, and a stock Telegraf and a NATS cluster, which
// `make interop` builds and runs. It has tests only.
package interop
