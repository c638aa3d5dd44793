//! The data plane: byte ranges of open models over HTTP/1.1 on 127.0.0.1, for whoever has the token of this launch.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use constant_time_eq::constant_time_eq;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_io_timeout::TimeoutStream;

use crate::config::random_text;
use crate::connections::{Busy, Connections, Usage};
use crate::file::ModelFile;
use crate::host::Host;
use crate::{range, transfer};

/// The request line and all headers, in bytes.
const MAX_HEAD: usize = 16 << 10;

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; browsers open six to one host. Idle ones make room for new ones.
    pub connections: usize,
    /// From the connection, or the answer before, to the end of a request's headers.
    pub head: Duration,
    /// Without a byte that the client takes.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 32, head: Duration::from_secs(10), stall: Duration::from_secs(60) }
    }
}

type Body = BoxBody<Bytes, io::Error>;

/// How the extension reaches the server. Not `Debug`: the token must not be written anywhere.
#[derive(Clone)]
pub struct Address {
    port: u16,
    token: Arc<str>,
}

impl Address {
    /// `http://127.0.0.1:PORT`.
    pub fn base(&self) -> String {
        format!("http://{}", self.host())
    }

    /// The only `Host` that is answered: a name that an attacker points at 127.0.0.1 is another one.
    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// 43 characters of base64url, new for every launch.
    pub fn token(&self) -> &str {
        &self.token
    }
}

/// A listening server.
pub struct Server {
    listener: TcpListener,
    service: Arc<Service>,
}

/// What answers on each connection.
pub struct Service {
    host: Arc<Host>,
    limits: Limits,
    address: Address,
    /// What `Origin` must be if there is one.
    origin: String,
}

impl Server {
    /// Listens on a free port for the extension of `origin`.
    ///
    /// # Errors
    /// When the system has no port or no random bytes.
    pub async fn bind(host: Arc<Host>, origin: String, limits: Limits) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let token = random_text().map_err(io::Error::other)?.into();
        let address = Address { port: listener.local_addr()?.port(), token };
        Ok(Self { listener, service: Arc::new(Service { host, limits, address, origin }) })
    }

    /// How to reach it.
    pub fn address(&self) -> Address {
        self.service.address.clone()
    }

    /// What answers, for connections that come from elsewhere.
    pub fn service(&self) -> Arc<Service> {
        Arc::clone(&self.service)
    }

    /// Answers for ever.
    pub async fn run(self) {
        let mut connections = Connections::new(self.service.limits.connections);
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file descriptors: some connection will end.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if !connections.make_room() {
                // Best effort: who opens so many may not read it.
                let _ = stream.try_write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                continue;
            }
            // Without it the last bytes of a range wait for an acknowledgement; failing that they do.
            let _ = stream.set_nodelay(true);
            let usage = Arc::<Usage>::default();
            let connection = self.service().connection(stream, Arc::clone(&usage));
            let task = tokio::spawn(async move {
                // How a connection ends is the client's affair, and nothing of it may be logged.
                let _ = connection.await;
            });
            connections.add(usage, task.abort_handle());
        }
    }
}

impl Service {
    /// Answers the requests of one connection, and says in `usage` what it is doing.
    ///
    /// # Errors
    /// When the client breaks it off, takes too long or does not speak HTTP.
    pub async fn connection(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite, usage: Arc<Usage>) -> hyper::Result<()> {
        let limits = self.limits;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.stall));
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(MAX_HEAD)
            // Bodies are mapped files: they go to the kernel as they are, never through a buffer of ours.
            .writev(true)
            .serve_connection(
                TokioIo::new(Box::pin(stream)),
                service_fn(move |request| Arc::clone(&self).answer(request, Arc::clone(&usage))),
            )
            .await
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, usage: Arc<Usage>) -> Result<Response<Body>, Infallible> {
        let busy = usage.begin();
        let file = self.authorize(&request).and_then(|()| {
            usage.trust();
            self.find(&request)
        });
        let mut response = match file {
            Ok(file) => {
                let checked = tokio::task::spawn_blocking(move || file.check().map(|()| file)).await;
                match checked {
                    Ok(Ok(file)) => serve(&request, &file, busy),
                    _ => refuse(StatusCode::PRECONDITION_FAILED),
                }
            }
            Err(status) => refuse(status),
        };
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        ] {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        Ok(response)
    }
}

impl Service {
    /// Whether a request is the extension's.
    fn authorize<B>(&self, request: &Request<B>) -> Result<(), StatusCode> {
        let headers = request.headers();
        let address = &self.address;
        let own_host = single(headers, &header::HOST).is_some_and(|host| *host == address.host());
        let own_target = request.uri().authority().is_none();
        let own_origin =
            !headers.contains_key(header::ORIGIN) || single(headers, &header::ORIGIN).is_some_and(|origin| *origin == self.origin);
        if !own_host || !own_target || !own_origin {
            return Err(StatusCode::FORBIDDEN);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let token = single(headers, &header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if !token.is_some_and(|token| constant_time_eq(token, address.token().as_bytes())) {
            return Err(StatusCode::UNAUTHORIZED);
        }
        Ok(())
    }

    /// The open file that a request names.
    fn find<B>(&self, request: &Request<B>) -> Result<Arc<ModelFile>, StatusCode> {
        let path = request.uri().path_and_query().and_then(|path| path.as_str().strip_prefix("/v1/models/"));
        let (id, index) = path.and_then(|path| path.split_once('/')).ok_or(StatusCode::NOT_FOUND)?;
        let index = index.parse().map_err(|_| StatusCode::NOT_FOUND)?;
        self.host.file(id, index).map_err(|_| StatusCode::NOT_FOUND)
    }
}

/// The value of a header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Answers a request for `file` that may have it; `busy` lasts as long as the answer.
fn serve<B>(request: &Request<B>, file: &Arc<ModelFile>, busy: Busy) -> Response<Body> {
    let headers = request.headers();
    // `If-Range` would send the whole file where ours is another one; a client that reads ranges wants to hear of that instead.
    let conditions = headers.get_all(header::IF_MATCH).iter().chain(headers.get_all(header::IF_RANGE));
    if conditions.into_iter().any(|tag| *tag != file.etag && tag != "*") {
        return refuse(StatusCode::PRECONDITION_FAILED);
    }
    let bytes = file.bytes();
    let ranged = headers.contains_key(header::RANGE);
    let range =
        if ranged { single(headers, &header::RANGE).and_then(|value| range::parse(value.to_str().ok()?, bytes)) } else { Some(0..bytes) };
    let Some(range) = range else {
        let mut response = refuse(StatusCode::RANGE_NOT_SATISFIABLE);
        response.headers_mut().insert(header::CONTENT_RANGE, text(format!("bytes */{bytes}")));
        return response;
    };
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::ETAG, text(file.etag.clone()));
    if ranged {
        headers.insert(header::CONTENT_RANGE, text(format!("bytes {}-{}/{bytes}", range.start, range.end - 1)));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    if request.method() == Method::GET {
        *response.body_mut() = BodyExt::boxed(StreamBody::new(transfer::stream(file, range, busy)));
    }
    response
}

/// A header's value from our own ASCII.
fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).expect("digits and quotes")
}

/// An answer without a body.
fn refuse(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    let header = match status {
        StatusCode::METHOD_NOT_ALLOWED => Some((header::ALLOW, "GET, HEAD")),
        StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, "Bearer")),
        _ => None,
    };
    response.headers_mut().extend(header.map(|(name, value)| (name, HeaderValue::from_static(value))));
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        // There are few connections, and none for those who may have nothing.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
