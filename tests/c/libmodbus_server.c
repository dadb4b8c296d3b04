/*
 * A libmodbus server that writes down every request before it answers.
 *
 * usage: libmodbus-server ADDRESS PORT LOG MILLISECONDS
 *
 * One process for each connection, since libmodbus waits for the rest of a request. A line of the
 * log is the unit id and the PDU in hexadecimal digits.
 */

#include <errno.h>
#include <fcntl.h>
#include <modbus/modbus.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void write_down(int log, const uint8_t *request, int length)
{
	char line[3 * MODBUS_TCP_MAX_ADU_LENGTH + 8];
	int used = snprintf(line, sizeof line, "%d ", request[6]);

	for (int at = 7; at < length; at++)
		used += snprintf(line + used, sizeof line - used, "%02x", request[at]);
	line[used++] = '\n';
	/* One write for a line: the processes share the file. */
	if (write(log, line, used) != used)
		exit(1);
}

static void serve(modbus_t *context, modbus_mapping_t *mapping, int log)
{
	uint8_t request[MODBUS_TCP_MAX_ADU_LENGTH];

	for (;;) {
		int length = modbus_receive(context, request);

		if (length == 0)
			continue;
		if (length < 0)
			return;
		write_down(log, request, length);
		if (modbus_reply(context, request, length, mapping) < 0)
			return;
	}
}

int main(int argc, char **argv)
{
	if (argc != 5) {
		fprintf(stderr, "usage: %s ADDRESS PORT LOG MILLISECONDS\n", argv[0]);
		return 2;
	}
	signal(SIGCHLD, SIG_IGN);

	int log = open(argv[3], O_WRONLY | O_CREAT | O_APPEND, 0644);
	modbus_t *context = modbus_new_tcp(argv[1], atoi(argv[2]));
	modbus_mapping_t *mapping = modbus_mapping_new(65536, 65536, 65536, 65536);

	if (log < 0 || context == NULL || mapping == NULL) {
		perror(argv[0]);
		return 1;
	}
	/* A refusal empties what waits to be read after this long; libmodbus' own is 500. */
	modbus_set_response_timeout(context, 0, atoi(argv[4]) * 1000);
	modbus_set_byte_timeout(context, 0, 0);

	int listener = modbus_tcp_listen(context, 64);

	if (listener < 0) {
		perror("listen");
		return 1;
	}
	for (;;) {
		if (modbus_tcp_accept(context, &listener) < 0)
			continue;
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			close(listener);
			serve(context, mapping, log);
			_exit(0);
		}
		/* Not modbus_close(): that ends the connection for the child as well. */
		close(modbus_get_socket(context));
	}
}
