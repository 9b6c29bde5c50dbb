// Package wire is what two processes of mirrorbus say to each other over a stream, as an SSH channel is one: lines of text and counted bodies, simple enough
// to be watched with a stock client. transports/hub/PROTOCOL.md describes it; the hub and the push by SSH both speak it.
package wire
