#!/usr/bin/env bash
# A Kubernetes API without nodes for the tests: etcd, kube-apiserver and kube-controller-manager, with
# kubectl. Objects are kept and controllers work; nobody runs a pod.
#   kubernetes.sh install      builds what is missing, into the user's cache: some six minutes
#   kubernetes.sh start DIR    starts it; prints its variables: the kubeconfig and where kubectl is
#   kubernetes.sh stop DIR     ends it
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/lib.sh"

verb=${1:-}
dir=${2:-}
release=37.2
etcd=v3.6.16
bin=$(cache)/kubernetes-1.$release

# The modules that Kubernetes' own tree holds: each has to be replaced by the published one of the
# same release.
staging="api apiextensions-apiserver apimachinery apiserver cli-runtime client-go cloud-provider
	cluster-bootstrap code-generator component-base component-helpers controller-manager cri-api
	cri-client cri-streaming csi-translation-lib dynamic-resource-allocation endpointslice
	externaljwt kms kube-aggregator kube-controller-manager kube-proxy kube-scheduler kubectl kubelet
	metrics mount-utils pod-security-admission sample-apiserver sample-cli-plugin sample-controller
	streaming"

build() {
	cd "$1"
	export CGO_ENABLED=0 GOFLAGS=-mod=mod
	mkdir etcd kubernetes bin
	cd etcd
	go mod init etcd
	go get -tool "go.etcd.io/etcd/server/v3@$etcd"
	go build -trimpath -ldflags '-s -w' -o ../bin/etcd go.etcd.io/etcd/server/v3
	cd ../kubernetes
	go mod init kubernetes
	local m k=k8s.io/kubernetes/cmd
	for m in $staging; do go mod edit -replace "k8s.io/$m=k8s.io/$m@v0.$release"; done
	go get -tool "$k/kube-apiserver@v1.$release" "$k/kube-controller-manager@v1.$release" \
		"$k/kubectl@v1.$release"
	go build -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.$release" \
		-o ../bin/ "$k/kube-apiserver" "$k/kube-controller-manager" "$k/kubectl"
}

# Waits until a check succeeds, while the process of a pid file lives: until_ok PIDFILE LOG COMMAND…
until_ok() {
	for _ in $(seq 900); do
		if "${@:3}" >/dev/null 2>&1; then return 0; fi
		if ! lives "$(cat "$1")"; then break; fi
		sleep 0.1
	done
	tail -n 20 "$2" >&2 || true
	fail "the server of $1 does not answer; its log is $2"
}

start() {
	local url=http://127.0.0.1 api manager client peer
	client=$(port_of "$dir" kubernetes-etcd)
	peer=$(port_of "$dir" kubernetes-peer)
	api=$(port_of "$dir" kubernetes)
	manager=$(port_of "$dir" kubernetes-manager)
	mkdir -p "$dir/kubernetes"
	cd "$dir/kubernetes"
	if [ ! -s sa.key ]; then
		openssl genrsa -out sa.key 2048 2>/dev/null
		openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
		echo "$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n'),admin,admin,system:masters" >tokens.csv
	fi
	local token
	token=$(cut -d , -f 1 tokens.csv)
	"$bin/etcd" --data-dir etcd --log-level warn --listen-client-urls "$url:$client" \
		--advertise-client-urls "$url:$client" --listen-peer-urls "$url:$peer" \
		--initial-advertise-peer-urls "$url:$peer" --initial-cluster "default=$url:$peer" \
		</dev/null >>"$dir/kubernetes-etcd.log" 2>&1 &
	echo $! >"$dir/kubernetes-etcd.pid"
	wait_for "$client" $! "$dir/kubernetes-etcd.log"
	# Loopback is refused as the address to tell others, who are none; this one is no machine's.
	"$bin/kube-apiserver" --etcd-servers="$url:$client" --bind-address=127.0.0.1 \
		--advertise-address=192.0.2.1 \
		--secure-port="$api" --endpoint-reconciler-type=none --cert-dir=certs \
		--service-account-issuer=https://k8s.local --service-account-key-file=sa.pub \
		--service-account-signing-key-file=sa.key --service-cluster-ip-range=10.96.0.0/24 \
		--authorization-mode=RBAC --token-auth-file=tokens.csv \
		--disable-admission-plugins=ServiceAccount \
		</dev/null >>"$dir/kubernetes.log" 2>&1 &
	echo $! >"$dir/kubernetes.pid"
	cat >kubeconfig <<-X
		apiVersion: v1
		kind: Config
		clusters:
		  - name: test
		    cluster: {server: "https://127.0.0.1:$api", insecure-skip-tls-verify: true}
		users: [{name: admin, user: {token: $token}}]
		contexts: [{name: test, context: {cluster: test, user: admin}}]
		current-context: test
	X
	until_ok "$dir/kubernetes.pid" "$dir/kubernetes.log" \
		"$bin/kubectl" --kubeconfig kubeconfig get --raw /readyz
	"$bin/kube-controller-manager" --kubeconfig=kubeconfig --authentication-kubeconfig=kubeconfig \
		--authorization-kubeconfig=kubeconfig --bind-address=127.0.0.1 --secure-port="$manager" \
		--service-account-private-key-file=sa.key --leader-elect=false \
		</dev/null >>"$dir/kubernetes-manager.log" 2>&1 &
	echo $! >"$dir/kubernetes-manager.pid"
	wait_for "$manager" $! "$dir/kubernetes-manager.log"
}

case $verb in
install)
	if [ -x "$bin/kubectl" ]; then exit 0; fi
	need openssl openssl
	mkdir -p "$(dirname "$bin")"
	fresh=$(mktemp -d "$bin.XXXXXX")
	trap 'chmod -R u+w "$fresh"; rm -rf "$fresh"' EXIT
	bash "$here/kubernetes.sh" build "$fresh" >&2 || fail "build Kubernetes 1.$release: it failed; what it said is above"
	mv -T "$fresh/bin" "$bin" 2>/dev/null || [ -d "$bin" ] # somebody else may have been faster
	;;
build) # a step of install, in a process of its own so that it ends at the first failure
	build "${dir:?a folder is needed}"
	;;
start)
	: "${dir:?a folder is needed}"
	(start)
	echo "export ACKWISE_TEST_KUBERNETES=$dir/kubernetes/kubeconfig PATH=$bin:\$PATH"
	;;
stop)
	for part in -manager "" -etcd; do end "${dir:?a folder is needed}/kubernetes$part.pid"; done
	;;
*)
	fail "usage: kubernetes.sh install | start DIR | stop DIR"
	;;
esac
