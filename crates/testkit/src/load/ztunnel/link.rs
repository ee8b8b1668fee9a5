//! A socket with TLS on it that never waits.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

/// A connection, from its first byte.
pub(crate) struct Link {
    socket: TcpStream,
    tls: ClientConnection,
}

impl Link {
    /// Begins to connect.
    pub(crate) fn connect(
        addr: SocketAddr,
        server_name: &str,
        tls: &Arc<ClientConfig>,
    ) -> anyhow::Result<Self> {
        let name = ServerName::try_from(server_name.to_owned())?;
        Ok(Self {
            socket: TcpStream::connect(addr)?,
            tls: ClientConnection::new(Arc::clone(tls), name)?,
        })
    }

    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Hands out what has come, as it was before encryption.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        mut on_plain: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        loop {
            let read = match self.socket.read(scratch) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if waits(&error) => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut sealed = &scratch[..read];
            while !sealed.is_empty() {
                self.tls.read_tls(&mut sealed)?;
                self.tls.process_new_packets().map_err(io::Error::other)?;
                let mut reader = self.tls.reader();
                loop {
                    match reader.fill_buf() {
                        Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                        Ok(plain) => {
                            on_plain(plain)?;
                            let len = plain.len();
                            reader.consume(len);
                        }
                        Err(error) if waits(&error) => break,
                        Err(error) => return Err(error),
                    }
                }
            }
            // Less than there was room for is all that there is: the next edge tells of more.
            if read < scratch.len() {
                return Ok(());
            }
        }
    }

    /// Whether all that was written has left, and more may be.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if waits(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(!self.tls.is_handshaking())
    }

    /// Encrypts this; [`Self::flush`] sends it.
    pub(crate) fn write(&mut self, plain: &[u8]) -> io::Result<()> {
        self.tls.writer().write_all(plain)
    }
}

fn waits(error: &io::Error) -> bool {
    // Before it is connected, a socket says so by the second.
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected | io::ErrorKind::Interrupted
    )
}
