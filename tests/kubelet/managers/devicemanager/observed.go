// Package devicemanager gets this file at build time: the kubelet's device manager at a socket of our choice, which
// says what happens to it. It has to be in the package, as only there the socket can be chosen.
package devicemanager

import (
	"sort"

	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
	plugin "k8s.io/kubernetes/pkg/kubelet/cm/devicemanager/plugin/v1beta1"
	"k8s.io/kubernetes/pkg/kubelet/cm/topologymanager"
)

// Observer is called with each event of a resource.
type Observer func(event, resource string, what map[string]any)

// observed is between the registration server and the device manager.
type observed struct {
	*ManagerImpl
	tell Observer
}

// NewObserved makes a device manager whose registration socket is at that path.
func NewObserved(socket string, tell Observer) (*ManagerImpl, error) {
	manager, err := newManagerImpl(socket, nil, topologymanager.NewFakeManager())
	if err != nil {
		return nil, err
	}
	between := &observed{manager, tell}
	manager.server, err = plugin.NewServer(socket, between, between)
	return manager, err
}

func (o *observed) PluginConnected(resource string, p plugin.DevicePlugin) error {
	err := o.ManagerImpl.PluginConnected(resource, p)
	what := map[string]any{"socket": p.SocketPath()}
	if err != nil {
		what["error"] = err.Error()
	}
	o.tell("connected", resource, what)
	return err
}

func (o *observed) PluginDisconnected(resource string) {
	o.ManagerImpl.PluginDisconnected(resource)
	o.tell("disconnected", resource, map[string]any{})
}

func (o *observed) PluginListAndWatchReceiver(resource string, answer *pluginapi.ListAndWatchResponse) {
	o.ManagerImpl.PluginListAndWatchReceiver(resource, answer)
	healthy, unhealthy := []string{}, []string{}
	for _, device := range answer.Devices {
		if device.Health == pluginapi.Healthy {
			healthy = append(healthy, device.ID)
		} else {
			unhealthy = append(unhealthy, device.ID)
		}
	}
	sort.Strings(healthy)
	sort.Strings(unhealthy)
	o.tell("devices", resource, map[string]any{"healthy": healthy, "unhealthy": unhealthy})
}

// AllocateThese asks a plugin for exactly these devices, whatever the book says, and writes nothing into it.
func (m *ManagerImpl) AllocateThese(resource string, ids []string) (map[string]any, error) {
	m.mutex.Lock()
	found, known := m.endpoints[resource]
	m.mutex.Unlock()
	if !known {
		return nil, errUnknown(resource)
	}
	answer, err := found.e.allocate(ids)
	return map[string]any{"allocation": answer}, err
}

type errUnknown string

func (e errUnknown) Error() string { return "no plugin is registered for " + string(e) }

// State is what the node reports: capacity and allocatable of each resource, and the IDs of its devices by health.
func (m *ManagerImpl) State() map[string]any {
	capacity, allocatable, gone := m.GetCapacity()
	m.mutex.Lock()
	defer m.mutex.Unlock()
	healthy, unhealthy := map[string][]string{}, map[string][]string{}
	for resource, ids := range m.healthyDevices {
		healthy[resource] = sorted(ids.UnsortedList())
	}
	for resource, ids := range m.unhealthyDevices {
		unhealthy[resource] = sorted(ids.UnsortedList())
	}
	return map[string]any{
		"capacity": capacity, "allocatable": allocatable, "gone": gone, "healthy": healthy, "unhealthy": unhealthy,
	}
}

func sorted(ids []string) []string {
	sort.Strings(ids)
	return ids
}
