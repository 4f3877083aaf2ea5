// Command managers runs two parts of the kubelet for device plugins: its plugin manager and its device manager.
//
// Both are the kubelet's own code, so is PodResources. The folders are below -root in place of /var/lib/kubelet. What
// happens is a JSON object a line on stdout. Each line on stdin is one command, and has one answer with its id.
//
//	{"id": 1, "do": "refuse", "times": 2, "text": "busy"}     fail the next two registrations, as a slow dial does
//	{"id": 2, "do": "invalid", "times": 1, "text": "busy"}    fail the next validation
//	{"id": 3, "do": "admit", "pod": "a", "wants": {"intel.com/sriov": 1}}
//	{"id": 4, "do": "allocate", "resource": "intel.com/sriov", "ids": ["0000:3b:02.0"]}
//	{"id": 5, "do": "start", "pod": "a"}                      as before a container starts
//	{"id": 6, "do": "remove", "pod": "a"}
//	{"id": 7, "do": "state"}                                  capacity and allocatable devices
//
// The end of stdin ends the program at once, as SIGKILL does a kubelet; its checkpoint stays.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/record"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
	served "k8s.io/kubernetes/pkg/kubelet/apis/podresources"
	"k8s.io/kubernetes/pkg/kubelet/cm/containermap"
	"k8s.io/kubernetes/pkg/kubelet/cm/devicemanager"
	"k8s.io/kubernetes/pkg/kubelet/config"
	"k8s.io/kubernetes/pkg/kubelet/pluginmanager"
)

// fields is a JSON object.
type fields map[string]any

var (
	output  sync.Mutex
	started = time.Now()
)

func tell(event string, what fields) {
	output.Lock()
	defer output.Unlock()
	what["event"], what["at"] = event, time.Since(started).Seconds()
	line, err := json.Marshal(what)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func main() {
	root := flag.String("root", "", "folder in place of /var/lib/kubelet")
	pods := flag.String("pods", "", "pods that are there from the start, with commas")
	flag.Parse()
	if err := run(*root, strings.FieldsFunc(*pods, func(r rune) bool { return r == ',' })); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(root string, names []string) error {
	socket := filepath.Join(root, "device-plugins", "kubelet.sock")
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return err
	}
	devices, err := devicemanager.NewObserved(socket, func(event, resource string, what map[string]any) {
		what["resource"] = resource
		tell(event, what)
	})
	if err != nil {
		return err
	}
	node := newNode(devices, names)
	ready := config.NewSourcesReady(func(sets.Set[string]) bool { return true })
	if err := devices.Start(node.GetActivePods, ready, containermap.NewContainerMap(), sets.New[string]()); err != nil {
		return err
	}
	if err := servePods(filepath.Join(root, "pod-resources", "kubelet.sock"), node); err != nil {
		return err
	}
	plugins := pluginmanager.NewPluginManager(filepath.Join(root, "plugins_registry"), &record.FakeRecorder{})
	plugins.AddHandler("DevicePlugin", &registrar{PluginHandler: devices.GetWatcherHandler(), node: node})
	go plugins.Run(ready, make(chan struct{}))
	tell("ready", fields{})
	return obey(node)
}

// servePods serves PodResources as the kubelet does.
func servePods(socket string, node *node) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return err
	}
	os.Remove(socket)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	providers := served.PodResourcesProviders{Pods: node, Devices: node, Cpus: node, Memory: node, DynamicResources: node}
	podresources.RegisterPodResourcesListerServer(server, served.NewV1PodResourcesServer(context.Background(), providers))
	go server.Serve(listener)
	return nil
}

// obey does what stdin says until it ends. Commands run side by side, as a plugin may not answer for long.
func obey(node *node) error {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var order order
		if err := json.Unmarshal(lines.Bytes(), &order); err != nil {
			return fmt.Errorf("a command is no JSON: %w", err)
		}
		go func() {
			answer, err := node.do(&order)
			if answer == nil {
				answer = fields{}
			}
			answer["id"], answer["error"] = order.ID, ""
			if err != nil {
				answer["error"] = err.Error()
			}
			tell("answer", answer)
		}()
	}
	return lines.Err()
}
