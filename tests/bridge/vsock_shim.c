/*
 * To be preloaded where no vsock connects anything: a socket of AF_VSOCK is one of AF_UNIX with the port in its abstract name. So the
 * bridge's own code for vsock addresses runs, its refusals of options that only TCP has too; a hypervisor's transport does not.
 */
#include <dlfcn.h>
#include <linux/vm_sockets.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#pragma GCC visibility push(default)
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int
socket(int family, int type, int protocol)
{
	return REAL(socket)(family == AF_VSOCK ? AF_UNIX : family, type, protocol);
}

static socklen_t
stand_in(const struct sockaddr *address, struct sockaddr_un *un)
{
	*un = (struct sockaddr_un){ .sun_family = AF_UNIX };
	int size = snprintf(un->sun_path + 1, sizeof(un->sun_path) - 1, "farwarp-vsock-%u", ((const struct sockaddr_vm *)address)->svm_port);
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)size);
}

int
bind(int fd, const struct sockaddr *address, socklen_t size)
{
	struct sockaddr_un un;

	if (address->sa_family != AF_VSOCK)
		return REAL(bind)(fd, address, size);
	size = stand_in(address, &un);
	return REAL(bind)(fd, (struct sockaddr *)&un, size);
}

int
connect(int fd, const struct sockaddr *address, socklen_t size)
{
	struct sockaddr_un un;

	if (address->sa_family != AF_VSOCK)
		return REAL(connect)(fd, address, size);
	size = stand_in(address, &un);
	return REAL(connect)(fd, (struct sockaddr *)&un, size);
}
