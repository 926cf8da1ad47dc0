// standins: what the tests of this folder run in the place of three of Kubernetes' CSI sidecars, which the Go module proxy does not
// serve. They take the flags that the chart gives the real ones, and do what is tested of them here:
//
//	standins csi-provisioner            PVC -> CreateVolume -> PV, on sig-storage-lib-external-provisioner, as the real one
//	standins csi-node-driver-registrar  tells the kubelet of the driver
//	standins livenessprobe              HTTP /healthz -> Probe
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

var endpoint = flag.String("csi-address", "/csi/csi.sock", "CSI socket")

func main() {
	commands := map[string]func(context.Context) error{
		"csi-provisioner":           provisionerFlags(),
		"csi-node-driver-registrar": registrarFlags(),
		"livenessprobe":             livenessFlags(),
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: standins csi-provisioner|csi-node-driver-registrar|livenessprobe [flags]")
		os.Exit(2)
	}
	klog.InitFlags(nil)
	_ = flag.CommandLine.Parse(os.Args[2:])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := commands[os.Args[1]](ctx); err != nil {
		klog.ErrorS(err, os.Args[1])
		os.Exit(1)
	}
}

func dial() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+*endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// driverName waits until the driver answers.
func driverName(ctx context.Context, conn *grpc.ClientConn) (string, error) {
	for {
		call, cancel := context.WithTimeout(ctx, 5*time.Second)
		info, err := csi.NewIdentityClient(conn).GetPluginInfo(call, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return info.Name, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		klog.InfoS("waiting for the driver", "err", err)
	}
}

type registration struct {
	registerapi.UnsafeRegistrationServer
	name, socket string
}

func (r registration) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{Type: registerapi.CSIPlugin, Name: r.name, Endpoint: r.socket, SupportedVersions: []string{"1.0.0"}}, nil
}

func (r registration) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if !s.PluginRegistered {
		klog.ErrorS(nil, "the kubelet refused the driver", "reason", s.Error)
		os.Exit(1)
	}
	klog.InfoS("registered with the kubelet", "driver", r.name)
	return &registerapi.RegistrationStatusResponse{}, nil
}

func registrarFlags() func(context.Context) error {
	socket := flag.String("kubelet-registration-path", "", "the CSI socket as the kubelet sees it")
	folder := flag.String("plugin-registration-path", "/registration", "the kubelet's plugins_registry")
	return func(ctx context.Context) error {
		conn, err := dial()
		if err != nil {
			return err
		}
		name, err := driverName(ctx, conn)
		if err != nil {
			return err
		}
		path := *folder + "/" + name + "-reg.sock"
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			return err
		}
		defer os.Remove(path)
		listener, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		server := grpc.NewServer()
		registerapi.RegisterRegistrationServer(server, registration{name: name, socket: *socket})
		go func() { <-ctx.Done(); server.Stop() }()
		return server.Serve(listener)
	}
}

func livenessFlags() func(context.Context) error {
	port := flag.String("health-port", "9808", "TCP port of /healthz")
	timeout := flag.Duration("probe-timeout", time.Second, "how long Probe may take")
	return func(ctx context.Context) error {
		conn, err := dial()
		if err != nil {
			return err
		}
		http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
			call, cancel := context.WithTimeout(r.Context(), *timeout)
			defer cancel()
			answer, err := csi.NewIdentityClient(conn).Probe(call, &csi.ProbeRequest{})
			if err != nil || (answer.Ready != nil && !answer.Ready.Value) {
				http.Error(w, fmt.Sprint("not ready: ", err), http.StatusInternalServerError)
				return
			}
			fmt.Fprintln(w, "ok")
		})
		server := &http.Server{Addr: ":" + *port}
		go func() { <-ctx.Done(); server.Close() }()
		if err := server.ListenAndServe(); err != http.ErrServerClosed {
			return err
		}
		return nil
	}
}
