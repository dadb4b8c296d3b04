//! A dosing controller: registers with values that move, served by tokio-modbus.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_modbus::prelude::{Request, Response, SlaveRequest};
use tokio_modbus::server::tcp::{Server, accept_tcp_connection};
use tokio_modbus::{ExceptionCode, server};

use crate::lab::Host;

/// Registers that nobody has written hold this much above their address, and move.
const FIRST_VALUE: u16 = 700;

/// What a PLC remembers. Copies share it.
#[derive(Clone, Debug)]
pub struct Service {
    started: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    registers: BTreeMap<u16, u16>,
    coils: BTreeMap<u16, bool>,
    functions: Vec<u8>,
    print: bool,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            state: Arc::default(),
        }
    }
}

impl Service {
    /// A PLC that prints each write.
    #[must_use]
    pub fn printing() -> Self {
        let service = Self::default();
        service.with(|state| state.print = true);
        service
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was written to a holding register, if anything was.
    #[must_use]
    pub fn written(&self, address: u16) -> Option<u16> {
        self.with(|state| state.registers.get(&address).copied())
    }

    /// The function codes of all requests so far.
    #[must_use]
    pub fn functions(&self) -> Vec<u8> {
        self.with(|state| state.functions.clone())
    }

    fn registers(&self, first: u16, quantity: u16) -> Result<Vec<u16>, ExceptionCode> {
        if quantity == 0 || quantity > 125 || first.checked_add(quantity - 1).is_none() {
            return Err(ExceptionCode::IllegalDataValue);
        }
        // A slow saw tooth, one step in a quarter of a second.
        let elapsed = self.started.elapsed().as_millis() / 250 % 40;
        let moved = u16::try_from(elapsed).unwrap_or(0);
        let value = |state: &State, address: u16| {
            let moving = FIRST_VALUE.wrapping_add(address).wrapping_add(moved);
            state.registers.get(&address).copied().unwrap_or(moving)
        };
        Ok(self.with(|state| {
            (0..quantity)
                .map(|offset| value(state, first.wrapping_add(offset)))
                .collect()
        }))
    }

    fn coils(&self, first: u16, quantity: u16) -> Result<Vec<bool>, ExceptionCode> {
        if quantity == 0 || quantity > 2000 || first.checked_add(quantity - 1).is_none() {
            return Err(ExceptionCode::IllegalDataValue);
        }
        let coil = |state: &State, address: u16| {
            state
                .coils
                .get(&address)
                .copied()
                .unwrap_or(address.is_multiple_of(3))
        };
        Ok(self.with(|state| {
            (0..quantity)
                .map(|offset| coil(state, first.wrapping_add(offset)))
                .collect()
        }))
    }

    fn write(&self, first: u16, values: &[u16]) {
        self.with(|state| {
            for (address, value) in (first..=u16::MAX).zip(values) {
                state.registers.insert(address, *value);
                if state.print {
                    println!("register {address} is now {value}");
                }
            }
        });
    }

    fn answer(&self, request: &Request<'_>) -> Result<Response, ExceptionCode> {
        self.with(|state| state.functions.push(request.function_code().value()));
        Ok(match request {
            Request::ReadCoils(first, quantity) => {
                Response::ReadCoils(self.coils(*first, *quantity)?)
            }
            Request::ReadDiscreteInputs(first, quantity) => {
                Response::ReadDiscreteInputs(self.coils(*first, *quantity)?)
            }
            Request::ReadHoldingRegisters(first, quantity) => {
                Response::ReadHoldingRegisters(self.registers(*first, *quantity)?)
            }
            Request::ReadInputRegisters(first, quantity) => {
                Response::ReadInputRegisters(self.registers(*first, *quantity)?)
            }
            Request::WriteSingleCoil(address, value) => {
                self.with(|state| state.coils.insert(*address, *value));
                Response::WriteSingleCoil(*address, *value)
            }
            Request::WriteMultipleCoils(first, values) => {
                self.with(|state| {
                    state
                        .coils
                        .extend((*first..=u16::MAX).zip(values.iter().copied()));
                });
                let quantity = u16::try_from(values.len()).unwrap_or(u16::MAX);
                Response::WriteMultipleCoils(*first, quantity)
            }
            Request::WriteSingleRegister(address, value) => {
                self.write(*address, &[*value]);
                Response::WriteSingleRegister(*address, *value)
            }
            Request::WriteMultipleRegisters(first, values) => {
                self.write(*first, values);
                let quantity = u16::try_from(values.len()).unwrap_or(u16::MAX);
                Response::WriteMultipleRegisters(*first, quantity)
            }
            Request::ReadWriteMultipleRegisters(from, quantity, to, values) => {
                self.write(*to, values);
                Response::ReadWriteMultipleRegisters(self.registers(*from, *quantity)?)
            }
            Request::MaskWriteRegister(address, and, or) => {
                let current = self.registers(*address, 1)?[0];
                self.write(*address, &[(current & and) | (or & !and)]);
                Response::MaskWriteRegister(*address, *and, *or)
            }
            _ => return Err(ExceptionCode::IllegalFunction),
        })
    }
}

impl server::Service for Service {
    type Request = SlaveRequest<'static>;
    type Response = Response;
    type Exception = ExceptionCode;
    type Future = Ready<Result<Response, ExceptionCode>>;

    fn call(&self, request: Self::Request) -> Self::Future {
        ready(self.answer(&request.request))
    }
}

/// Serves Modbus/TCP at this address until it is dropped.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(address: SocketAddr, service: Service) -> Result<()> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    answer(listener, service).await
}

async fn answer(listener: TcpListener, service: Service) -> Result<()> {
    let new_service = |_| Ok(Some(service.clone()));
    let on_connected = |stream, socket_address| async move {
        accept_tcp_connection(stream, socket_address, new_service)
    };
    // A client that goes away in the middle of a request is no concern of the PLC.
    Ok(Server::new(listener).serve(&on_connected, |_| {}).await?)
}

/// A PLC on a host of the lab. It stops when it goes.
#[derive(Debug)]
pub struct Plc {
    service: Service,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Plc {
    /// Starts it.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(host: &Host, address: impl Into<SocketAddr>) -> Result<Self> {
        let address = address.into();
        let listener = host.enter(|| {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(listener)
        })?;
        let listener = listener.with_context(|| format!("cannot listen on {address}"))?;
        let service = Service::default();
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let shared = service.clone();
        // An accepted connection lives in its listener's namespace, so this thread may live in ours.
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                let _ = ready.send(());
                tokio::select! {
                    _ = answer(listener, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready
            .recv()
            .map_err(|_| anyhow!("the PLC did not start"))?;
        Ok(Self {
            service,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// What it remembers.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }
}

impl Drop for Plc {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
