"""A program for a lab that answers by UDP, from the address that was asked."""

UDP_ECHO = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_IP, 8, 1)  # IP_PKTINFO: the answer comes from the address that was asked
sock.bind(("0.0.0.0", 4000))
print("ready", flush=True)
while True:
    data, control, _, sender = sock.recvmsg(65536, 1024)
    asked = control[0][2][8:12]
    sock.sendmsg([data], [(socket.SOL_IP, 8, bytes(4) + asked + bytes(4))], 0, sender)
"""
