# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %%
# coding: utf-8
# # Homework, ported from my Python 2 / torch 0.3 scripts
from __future__ import print_function, division, absolute_import

import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
import torch.utils.data
from torch.autograd import Variable

try:
    xrange
except NameError:
    xrange = range

# %%
class Args(object):
    pass

args = Args()
args.batch_size = 64; args.epochs = 20; args.lr = 1e-3
args.nz = 64; args.seed = 1; args.log_interval = 100
args.cuda = torch.cuda.is_available()
torch.manual_seed(args.seed)
if args.cuda: torch.cuda.manual_seed(args.seed)
device = torch.device('cuda' if args.cuda else 'cpu')
nz = args.nz

# %%
def weights_init(m):
    classname = m.__class__.__name__
    if classname.find('Conv') != -1:
        m.weight.data.normal_(0.0, 0.02)
        m.bias.data.fill_(0)
    elif classname.find('BatchNorm') != -1:
        m.weight.data.normal_(1.0, 0.02)
        m.bias.data.fill_(0)

# %%
class Encoder(nn.Module):
    def __init__(self, nz):
        super(Encoder, self).__init__()
        ndf = 32
        self.main = nn.Sequential()
        # input is 1 x 28 x 28
        self.main.add_module('conv0', nn.Conv2d(1, ndf, 4, 2, 1))
        self.main.add_module('relu0', nn.LeakyReLU(0.2, inplace=True))
        # state size. ndf x 14 x 14
        self.main.add_module('conv1', nn.Conv2d(ndf, ndf * 2, 4, 2, 1))
        self.main.add_module('bn1', nn.BatchNorm2d(ndf * 2))
        self.main.add_module('relu1', nn.LeakyReLU(0.2, inplace=True))
        # state size. (ndf*2) x 7 x 7
        self.main.add_module('conv2', nn.Conv2d(ndf * 2, ndf * 4, 3, 2))
        self.main.add_module('bn2', nn.BatchNorm2d(ndf * 4))
        self.main.add_module('relu2', nn.LeakyReLU(0.2, inplace=True))
        # state size. (ndf*4) x 3 x 3
        self.main.add_module('conv3', nn.Conv2d(ndf * 4, ndf * 8, 3))
        self.main.add_module('bn3', nn.BatchNorm2d(ndf * 8))
        self.main.add_module('relu3', nn.LeakyReLU(0.2, inplace=True))
        self.linear = nn.Linear(ndf * 8, nz)
        weights_init(self)
        self.main.apply(weights_init)

    def forward(self, input):
        output = self.main(input)
        output = output.view(output.size(0), -1)
        return self.linear(output)

class Decoder(nn.Module):
    def __init__(self, nz):
        super(Decoder, self).__init__()
        ngf = 32
        self.linear = nn.Linear(nz, ngf * 8)
        self.main = nn.Sequential(
            nn.BatchNorm2d(ngf * 8),
            nn.LeakyReLU(0.2, True),
            nn.ConvTranspose2d(ngf * 8, ngf * 4, 3, 1, 0),
            nn.BatchNorm2d(ngf * 4),
            nn.LeakyReLU(0.2, True),
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 3, 2, 0),
            nn.BatchNorm2d(ngf * 2),
            nn.LeakyReLU(0.2, True),
            nn.ConvTranspose2d(ngf * 2, ngf, 4, 2, 1),
            nn.BatchNorm2d(ngf),
            nn.LeakyReLU(0.2, True),
            nn.ConvTranspose2d(ngf, 1, 4, 2, 1),
            nn.Sigmoid()
        )
        self.main.apply(weights_init)

    def forward(self, input):
        h = self.linear(input)
        return self.main(h.resize(h.size(0), h.size(1), 1, 1)) if False else self.main(h.unsqueeze(2).unsqueeze(3))

# %%
class AutoEncoder(nn.Module):
    def __init__(self, nz):
        super(AutoEncoder, self).__init__()
        self.encoder = Encoder(nz)
        self.decoder = Decoder(nz)
    def forward(self, x):
        return self.decoder(self.encoder(x))
    def reconstruct(self, x):
        return self.forward(x)

# %%
def make_data_loader(dataset, batch_size, num_workers=0):
    kwargs = {'num_workers': num_workers, 'pin_memory': True} if args.cuda else {'num_workers': num_workers}
    return torch.utils.data.DataLoader(dataset, batch_size=batch_size, shuffle=True, **kwargs)

# %%
class AverageMeter(object):
    """Computes and stores the average and current value"""
    def __init__(self):
        self.reset()
    def reset(self):
        self.val = self.avg = self.sum = self.count = 0
    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n
        self.avg = self.sum / self.count

def train_autoencoder(model, data_loader, epochs, learning_rate, device):
    criterion = nn.MSELoss(size_average=True)
    optimizer = optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.999))
    all_losses = []
    for epoch in xrange(1, epochs + 1):
        model.train()
        losses = AverageMeter()
        end = time.time()
        for batch_idx, (data, target) in enumerate(data_loader):
            data = Variable(data.to(device))
            model.zero_grad()
            output = model(data)
            loss = criterion(output, data)
            loss.backward()
            optimizer.step()
            losses.update(loss.data.item(), data.size(0))
            all_losses.append(losses.val)
            if batch_idx % args.log_interval == 0:
                print('\rTrain Epoch: {} [{}/{} ({:.0f}%)]\tLoss: {:.6f}'.format(
                    epoch, batch_idx * len(data), len(data_loader.dataset),
                    100. * batch_idx / len(data_loader), loss.data.item()), end='')
                sys.stdout.flush()
        print('====> Epoch: %d Average loss: %.4f (%.1fs)' % (epoch, losses.avg, time.time() - end))
    return all_losses

# %%
def sample_images(model, num_samples, nz):
    noise = torch.FloatTensor(num_samples, nz).normal_(0, 1)
    if next(model.parameters()).is_cuda:
        noise = noise.cuda()
    return model.decoder(Variable(noise.to(next(model.parameters()).device))).data

# %%
def kl_divergence(mu1, log_sigma1, mu2, log_sigma2):
    v1 = torch.exp(2 * log_sigma1)
    v2 = torch.exp(2 * log_sigma2)
    return log_sigma2 - log_sigma1 + (v1 + (mu1 - mu2) ** 2) / (2 * v2) - 0.5

# %%
class VAE(nn.Module):
    def __init__(self, nz, beta=1.0):
        super(VAE, self).__init__()
        self.nz, self.beta = nz, beta
        self.encoder = Encoder(nz * 2)
        self.decoder = Decoder(nz)

    def reparameterize(self, mu, logsigma):
        std = logsigma.exp()
        eps = Variable(std.data.new(std.size()).normal_())
        return eps.mul(std).add_(mu)

    def forward(self, x):
        q = self.encoder(x)
        mu = q[:, :q.size(1) // 2]
        logsigma = q[:, q.size(1) // 2:]
        z = self.reparameterize(mu, logsigma)
        return {'q': q, 'rec': self.decoder(z)}

    def loss(self, x, outputs):
        recon_x, q = outputs['rec'], outputs['q']
        mu, logsigma = q.chunk(2, 1)
        logvar = 2 * logsigma
        MSE = F.mse_loss(recon_x.view(recon_x.size(0), -1), x.view(x.size(0), -1))
        # see Appendix B from VAE paper: Kingma and Welling, 2014
        KLD_element = mu.pow(2).add_(logvar.exp()).mul_(-1).add_(1).add_(logvar)
        KLD = torch.sum(KLD_element).mul_(-0.5) / x.size(0)
        return MSE + self.beta * KLD, {'rec_loss': MSE, 'kl_loss': KLD}

    def reconstruct(self, x):
        mu = torch.index_select(self.encoder(x), 1, torch.arange(self.nz, device=x.device))
        return self.decoder(mu)

# %%
def train_vae(model, data_loader, epochs, learning_rate, device):
    optimizer = optim.Adam(model.parameters(), learning_rate)
    rec_losses, kl_losses = [], []
    for epoch in xrange(epochs):
        model.train()
        for i, (data, _) in enumerate(data_loader, 0):
            data = Variable(data).to(device)
            out = model(data)
            loss, d = model.loss(data, out)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rec_losses.append(float(d['rec_loss'])); kl_losses.append(float(d['kl_loss']))
    return dict(rec_loss=rec_losses, kl_loss=kl_losses)

# %%
for epoch in xrange(3):
    print epoch  # python 2 leftover, does not parse

# %%
TUNED_BETA = 1e-04
